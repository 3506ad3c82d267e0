"""SMIMECapabilities: which algorithms a requester can decipher a key with, and which of them is taken.

RFC 8551 section 2.5.2 (the attribute), RFC 7030 section 4.4.1 (it lists the acceptable key-encipherment algorithms) and 4.4.2 (what is
used is in the list). A capability is encoded as the AlgorithmIdentifier it stands for, so the octets are compared with those of
`key_encryption`. What comes first is preferred, but that RSAES-OAEP goes before rsaEncryption (RFC 8017 section 7.2).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric import rsa

from estcore import der as der_module
from estcore.auth_enveloped_data import AES_GCM_OIDS
from estcore.der import SEQUENCE, algorithm_identifier
from estcore.der_reader import only
from estcore.enveloped_data import AES_CBC_OIDS
from estcore.errors import BadCsr
from estcore.key_encryption import (
    KEY_AGREEMENT_OIDS,
    KEY_AGREEMENTS,
    KEY_TRANSPORTS,
    KEY_WRAPS,
    RSAES_OAEP_OID,
    KeyAgreement,
    KeyTransport,
    KeyWrap,
)

MAX_CAPABILITIES: Final = 64


class Mode(StrEnum):
    """How AES encrypts the content, and so what is around it."""

    CBC = "CBC"
    """EnvelopedData (RFC 3565)."""
    GCM = "GCM"
    """AuthEnvelopedData (RFC 5084)."""


class ContentCipher(NamedTuple):
    """AES in a mode, with a content key of so many octets."""

    mode: Mode
    key_octets: int


_CIPHERS = {
    **{algorithm_identifier(oid): ContentCipher(Mode.CBC, octets) for octets, oid in AES_CBC_OIDS.items()},
    **{algorithm_identifier(oid): ContentCipher(Mode.GCM, octets) for octets, oid in AES_GCM_OIDS.items()},
    algorithm_identifier("1.2.840.113549.3.7"): None,  # DES-EDE3-CBC
    algorithm_identifier("1.2.840.113549.1.9.16.3.18"): None,  # ChaCha20-Poly1305
}
"""Content ciphers by their capability; None for those that are known and not used here."""


@dataclass(frozen=True, slots=True)
class SmimeCapabilities:
    """What an SMIMECapabilities attribute lists, in its order: each the DER of a SMIMECapability."""

    listed: tuple[bytes, ...]

    def key_wrap(self, octets: int) -> KeyWrap:
        """AES key wrap for a key of so many octets; raises BadCsr (NoCommonAlgorithm) where it is not listed."""
        wrap = KeyWrap(octets)
        if wrap not in self._wraps():
            raise _nothing_in_common(f"the key that DecryptKeyIdentifier names takes AES-{8 * octets} key wrap, {wrap.oid}")
        return wrap

    def key_transport(self) -> KeyTransport:
        """How a content key goes to an RSA key; raises BadCsr (NoCommonAlgorithm)."""
        bare_oaep = algorithm_identifier(RSAES_OAEP_OID)  # without parameters: which hash is left to us
        offered = [KeyTransport.OAEP_SHA256 if each == bare_oaep else KEY_TRANSPORTS.get(each) for each in self.listed]
        known = [transport for transport in offered if transport is not None]
        oaep = [transport for transport in known if transport is not KeyTransport.PKCS1_V15]
        if not known:
            raise _nothing_in_common("an RSA key takes RSAES-OAEP with SHA-256, SHA-384 or SHA-512 (1.2.840.113549.1.1.7) or rsaEncryption")
        return (oaep or known)[0]

    def key_agreement(self) -> tuple[KeyAgreement, KeyWrap]:
        """How a content key goes to an EC key; raises BadCsr (NoCommonAlgorithm).

        The parameter of the scheme is the key wrap (RFC 5753 section 7.1.4); where it is left out, the first key wrap of the list is taken.
        """
        wraps = self._wraps()
        without_wrap = {algorithm_identifier(oid): scheme for scheme, oid in KEY_AGREEMENT_OIDS.items()}
        for each in self.listed:
            if each in KEY_AGREEMENTS:
                scheme, wrap, _ = KEY_AGREEMENTS[each]
                return scheme, wrap
            if each in without_wrap and wraps:
                return without_wrap[each], wraps[0]
        raise _nothing_in_common(
            "an EC key takes dhSinglePass-stdDH-sha256kdf-scheme or -sha384kdf-scheme (1.3.132.1.11.1, .2) with AES key wrap as parameter"
        )

    def content_cipher(self, fitting: int) -> ContentCipher:
        """The first cipher that is listed and used here; AES-CBC with `fitting` octets where no cipher is listed, for none need be.

        Raises BadCsr (NoCommonAlgorithm) where ciphers are listed and AES is not.
        """
        ciphers = [_CIPHERS[each] for each in self.listed if each in _CIPHERS]
        usable = [cipher for cipher in ciphers if cipher is not None]
        if ciphers and not usable:
            raise _nothing_in_common("the content is encrypted with AES-CBC or AES-GCM")
        return usable[0] if usable else ContentCipher(Mode.CBC, fitting)

    def _wraps(self) -> list[KeyWrap]:
        return [KEY_WRAPS[each] for each in self.listed if each in KEY_WRAPS]


def parse(capabilities_der: bytes) -> SmimeCapabilities:
    """Parse the DER value of an SMIMECapabilities attribute. Raises MalformedBody, and BadCsr for an empty list."""
    what = "the SMIMECapabilities"
    der_module.check(capabilities_der, what=what)
    listed = tuple(only(capabilities_der, what=what).each(SEQUENCE, at_most=MAX_CAPABILITIES))
    for each in listed:
        only(each, what="an SMIMECapability").oid()
    if not listed:
        raise BadCsr("the SMIMECapabilities list nothing; list the algorithms that you can decipher a key with", reason="NoCommonAlgorithm")
    return SmimeCapabilities(listed)


def fitting_content_key_octets(public_key: rsa.RSAPublicKey) -> int:
    """A content key at least as strong as the RSA key that it goes to (SP 800-57 part 1 table 2): AES-128 up to 3072 bits, else AES-256."""
    return 16 if public_key.key_size <= 3072 else 32


def _nothing_in_common(sentence: str) -> BadCsr:
    return BadCsr(f"{sentence}; SMIMECapabilities do not list it (RFC 7030 section 4.4.2)", reason="NoCommonAlgorithm")
