"""CA Secrets that a tenant wrote to do harm: each is loaded or refused by a ConfigurationError that names its member, and no other way."""

import base64
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448
from hypothesis import given, settings
from hypothesis import strategies as st

from estcore import authority
from estcore.errors import ConfigurationError
from estcore.issuer_spec import KeyAlgorithm
from tests import pki
from tests.pki import EPOCH

WHERE = "Secret devices/factory-ca"
ENTRIES = {"tls.crt": "certificate_chain_pem", "ca.crt": "root_pem", "rollover.crt": "rollover_pem"}
CA = pki.ca("Hostile CA")
VERSION_3, VERSION_2, VERSION_9 = (bytes.fromhex(f"a0030201{version:02x}") for version in (2, 1, 8))


def load(*, key: bytes | None = CA.key_pem, **entries: bytes) -> authority.Authority:
    given: dict[str, Any] = {"certificate_chain_pem": CA.pem, "root_pem": None, **entries}
    return authority.load(private_key_pem=key, now=EPOCH, where=WHERE, **given)


def as_pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


ROOT_KEYS: dict[str, pki.SigningKey] = {
    "Ed448": ed448.Ed448PrivateKey.generate(),
    "DSA": dsa.generate_private_key(2048),
    "P-224": ec.generate_private_key(ec.SECP224R1()),
}


@pytest.mark.spec("THREAT-27")
@pytest.mark.parametrize("kind", ROOT_KEYS)
@pytest.mark.parametrize("entry", ["tls.crt", "ca.crt"])
def test_a_ca_below_a_root_of_a_kind_that_we_never_certify_is_loaded(kind: str, entry: str) -> None:
    root = pki.ca(f"{kind} root", private_key=ROOT_KEYS[kind])
    below = pki.ca("Below it", issuer=root)
    if entry == "tls.crt":
        loaded = load(key=below.key_pem, certificate_chain_pem=below.pem + root.pem)
    else:
        loaded = load(key=below.key_pem, certificate_chain_pem=below.pem, root_pem=root.pem)
    assert loaded.certificates == (below.certificate, root.certificate)


@pytest.mark.spec("THREAT-27")
@pytest.mark.parametrize("kind", ["Ed448", "DSA"])
def test_a_ca_whose_key_is_elsewhere_may_have_a_key_of_any_kind_without_its_identifier(kind: str) -> None:
    ca = pki.ca(f"{kind} CA", private_key=ROOT_KEYS[kind], without=[x509.SubjectKeyIdentifier])
    assert load(key=None, certificate_chain_pem=ca.pem).certificate == ca.certificate


@pytest.mark.spec("THREAT-27")
@pytest.mark.parametrize("version", [VERSION_2, VERSION_9], ids=["version 2", "version 9"])
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_certificate_of_an_impossible_version_is_refused_by_the_name_of_its_member(entry: str, version: bytes) -> None:
    with pytest.raises(ConfigurationError, match=f"^{WHERE}: {entry} holds a certificate that cannot be read$") as refused:
        load(**{ENTRIES[entry]: as_pem(CA.der.replace(VERSION_3, version, 1))})
    assert refused.value.reason == "SecretInvalidData"


def _load_or_be_told(**given: Any) -> None:
    told = f"{WHERE}: "
    try:
        load(**given)
    except ConfigurationError as refused:
        told = refused.message
    assert told.startswith(f"{WHERE}: ")


def _mutated(data: st.DataObject, der: bytes) -> bytes:
    octets = bytearray(der)
    for _ in range(data.draw(st.integers(1, 3))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    return bytes(octets)


@pytest.mark.spec("THREAT-27")
@pytest.mark.parametrize("entry", ENTRIES)
@given(data=st.data())
def test_mutants_are_loaded_or_refused_with_a_sentence(entry: str, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from([CA.key_pem, None]))
    _load_or_be_told(key=key, **{ENTRIES[entry]: as_pem(_mutated(data, CA.der))})


@pytest.mark.spec("THREAT-27")
@pytest.mark.parametrize("algorithm", [KeyAlgorithm.ECDSA_P256, KeyAlgorithm.RSA_2048, KeyAlgorithm.ED25519])
@settings(max_examples=40)
@given(data=st.data())
def test_mutants_of_the_key_are_loaded_or_refused_with_a_sentence(algorithm: KeyAlgorithm, data: st.DataObject) -> None:
    ca = pki.ca(f"Hostile {algorithm} CA", algorithm=algorithm)
    head, *body, foot = ca.key_pem.splitlines()
    mutant = base64.encodebytes(_mutated(data, base64.b64decode(b"".join(body))))
    _load_or_be_told(key=b"\n".join((head, mutant.strip(), foot, b"")), certificate_chain_pem=ca.pem)
