"""What the EST family of RFCs says, without IO: bytes, time, serials and randomness come in as arguments."""
