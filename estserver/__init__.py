"""The EST server: the only program that reads a CA key."""
