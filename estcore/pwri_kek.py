"""PWRI-KEK: the other way in which a password wraps a key, read only; RFC 3211 section 2.3.2, with AES-CBC (RFC 3370 section 4.3).

RFC 5274 asks CMC for AES key wrap, and that is what is sent. Bouncy Castle and OpenSSL have nothing but PWRI-KEK for a password.
"""

import hmac
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from estcore.der import SEQUENCE
from estcore.der_reader import OCTET_STRING, Reader

PWRI_KEK_OID: Final = "1.2.840.113549.1.9.16.3.9"
MAX_WRAPPED_OCTETS: Final = 256
_BLOCK: Final = 16
_HEADER: Final = 4
"""A count octet and three octets that are the complement of the first three of the key."""
_AES_CBC: Final = {"2.16.840.1.101.3.4.1.2": 16, "2.16.840.1.101.3.4.1.22": 24, "2.16.840.1.101.3.4.1.42": 32}
"""Dotted OID → octets of the key-encryption key."""


def read_parameters(algorithm: Reader) -> tuple[int, bytes] | None:
    """The parameters of PWRI-KEK, from behind its OID in the AlgorithmIdentifier: octets of the key-encryption key, IV.

    None where the cipher is not AES-CBC. Raises MalformedBody.
    """
    cipher = algorithm.inside(SEQUENCE)
    algorithm.close()
    key_octets = _AES_CBC.get(cipher.oid())
    if key_octets is None or not cipher.next_is(OCTET_STRING):
        return None
    iv = cipher.octets()
    cipher.close()
    return (key_octets, iv) if len(iv) == _BLOCK else None


def unwrap(wrapped: bytes, *, key_encryption_key: bytes, iv: bytes) -> bytes:
    """The key. Raises ValueError where the key-encryption key is another one or the octets were altered, as far as three octets tell."""
    if not 2 * _BLOCK <= len(wrapped) <= MAX_WRAPPED_OCTETS or len(wrapped) % _BLOCK:
        raise ValueError("not the length of a wrapped key")
    # The outer layer was enciphered with the last block of the inner one as its IV: found from the last two blocks, then the rest follows.
    last = _decipher(wrapped[-_BLOCK:], key_encryption_key, wrapped[-2 * _BLOCK : -_BLOCK])
    inner = _decipher(wrapped[:-_BLOCK], key_encryption_key, last) + last
    block = _decipher(inner, key_encryption_key, iv)
    count, check, key = block[0], block[1:_HEADER], block[_HEADER:]
    if not 3 <= count <= len(key) or not hmac.compare_digest(bytes(octet ^ 0xFF for octet in check), key[:3]):
        raise ValueError("the check value does not fit")
    return key[:count]


def _decipher(octets: bytes, key: bytes, iv: bytes) -> bytes:
    decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    return decryptor.update(octets) + decryptor.finalize()
