"""RFC 5652 section 5: what is accepted as SignedData, whose signatures hold, and that OpenSSL reads and writes the same."""

import functools
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from asn1crypto import cms
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from estcore import cms_signature, signed_data
from estcore.cms_signature import BadSignature, Digest, MessageSigner
from estcore.errors import EstError, MalformedBody
from estcore.issuer_spec import KeyAlgorithm
from estcore.keys import PublicKey
from estcore.signed_data import IssuerAndSerialNumber, SignerIdentifier, SubjectKeyIdentifier
from tests import pki

PKI_DATA = "1.3.6.1.5.5.7.12.2"
CONTENT = b"0\x08" + b"0\x00" * 4
SKI = SubjectKeyIdentifier(b"\x01" * 20)


def public(algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256, owner: str = "device") -> PublicKey:
    return pki.key(algorithm, owner).public_key()


def signer(algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256, owner: str = "device") -> MessageSigner:
    return cms_signature.signer_of(pki.key(algorithm, owner))


def by_certificate(certificate: x509.Certificate) -> IssuerAndSerialNumber:
    return IssuerAndSerialNumber(certificate.issuer.public_bytes(), certificate.serial_number)


def message(identifier: SignerIdentifier = SKI, algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256, content: bytes = CONTENT) -> bytes:
    return signed_data.build(PKI_DATA, content, [(identifier, signer(algorithm))])


@pytest.mark.parametrize("algorithm", pki.ALL_ALGORITHMS)
@pytest.mark.spec("EST-CMC-05", "EST-CMC-37")
def test_a_message_signed_by_any_accepted_key_verifies_and_keeps_its_content(algorithm: KeyAlgorithm) -> None:
    parsed = signed_data.parse(message(algorithm=algorithm))
    assert (parsed.content_type, parsed.content) == (PKI_DATA, CONTENT)
    [only] = parsed.signers
    assert only.identifier == SKI
    signed_data.verify(only, public(algorithm))


@pytest.mark.spec("EST-CMC-07")
@pytest.mark.parametrize("algorithm", pki.ALL_ALGORITHMS)
def test_another_key_does_not_verify(algorithm: KeyAlgorithm) -> None:
    [only] = signed_data.parse(message(algorithm=algorithm)).signers
    with pytest.raises(BadSignature):
        signed_data.verify(only, public(algorithm, "somebody else"))


@pytest.mark.spec("EST-CMC-07")
def test_every_flipped_bit_of_a_message_is_noticed() -> None:
    """In the content, the attributes, the signature or the structure: refused at parsing or at verifying. The bag is not signed."""
    der = message()
    unnoticed = []
    for position in range(len(der)):
        changed = bytearray(der)
        changed[position] ^= 1
        try:
            parsed = signed_data.parse(bytes(changed))
            for each in parsed.signers:
                signed_data.verify(each, public())
        except EstError:
            continue
        if not (parsed.signers and parsed.signers[0].identifier != SKI):  # who signed is found by the identifier, and then verified
            unnoticed.append(position)
    assert unnoticed == []


@pytest.mark.spec("EST-CMC-05")
def test_versions_and_identifiers_are_as_rfc_5652_says() -> None:
    """3 for content other than data and for a signer by key; 1 for a signer by issuer and serial number (sections 5.1 and 5.3)."""
    certificate = pki.leaf(pki.ca())
    expected: dict[tuple[str, SignerIdentifier], tuple[str, str]] = {
        (PKI_DATA, by_certificate(certificate)): ("v3", "v1"),
        (PKI_DATA, SKI): ("v3", "v3"),
        (signed_data.DATA, by_certificate(certificate)): ("v1", "v1"),
        (signed_data.DATA, SKI): ("v3", "v3"),
    }
    for (content_type, identifier), versions in expected.items():
        der = signed_data.build(content_type, CONTENT, [(identifier, signer())])
        content = cms.ContentInfo.load(der, strict=True)["content"]
        assert (content["version"].native, content["signer_infos"][0]["version"].native) == versions
        assert signed_data.parse(der).signers[0].identifier == identifier


def test_another_version_is_refused() -> None:
    der = message()
    assert der.count(b"\x02\x01\x03") == 2
    for wrong in (der.replace(b"\x02\x01\x03", b"\x02\x01\x01", 1), der[::-1].replace(b"\x03\x01\x02", b"\x01\x01\x02", 1)[::-1]):
        with pytest.raises(MalformedBody, match="version 1"):
            signed_data.parse(wrong)


def test_signed_attributes_say_type_digest_and_time_and_nothing_else() -> None:
    der = signed_data.build(PKI_DATA, CONTENT, [(SKI, signer())], signing_time=pki.EPOCH)
    [info] = cms.ContentInfo.load(der, strict=True)["content"]["signer_infos"]
    attributes = {attribute["type"].native: attribute["values"].native for attribute in info["signed_attrs"]}
    assert attributes == {
        "content_type": ["1.3.6.1.5.5.7.12.2"],
        "message_digest": [Digest.SHA256.of(CONTENT)],
        "signing_time": [pki.EPOCH],
    }
    assert signed_data.parse(der).signers[0].signing_time == pki.EPOCH


@pytest.mark.spec("EST-CMC-07")
def test_an_ed25519_signature_goes_with_sha_512_only() -> None:
    """RFC 8419 section 3.1."""
    own = signer(KeyAlgorithm.ED25519)
    assert own.digest is Digest.SHA512
    der = signed_data.build(PKI_DATA, CONTENT, [(SKI, replace(own, digest=Digest.SHA256))])
    [only] = signed_data.parse(der).signers
    with pytest.raises(BadSignature, match="digest algorithm"):
        signed_data.verify(only, public(KeyAlgorithm.ED25519))


@pytest.mark.spec("EST-CMC-25")
def test_no_signature_passes_only_where_the_caller_says_so() -> None:
    nothing = MessageSigner(digest=Digest.SHA256, algorithm=cms_signature.NO_SIGNATURE, sign=Digest.SHA256.of)
    [only] = signed_data.parse(signed_data.build(PKI_DATA, CONTENT, [(SKI, nothing)])).signers
    signed_data.verify(only, None, allow_no_signature=True)
    with pytest.raises(BadSignature):
        signed_data.verify(only, public())
    with pytest.raises(BadSignature):
        signed_data.verify(replace(only, signature=bytes(32)), None, allow_no_signature=True)


@pytest.mark.spec("EST-CMC-37")
@pytest.mark.parametrize(
    "algorithm",
    [
        "1.3.14.3.2.26",  # SHA-1
        "1.2.840.113549.2.5",  # MD5
        "2.16.840.1.101.3.4.2.4",  # SHA-224
    ],
)
def test_weak_digests_are_refused_by_name(algorithm: str) -> None:
    with pytest.raises(BadSignature, match="SHA-256"):
        cms_signature.digest_of(pki.sequence(pki.oid(algorithm), b"\x05\x00"))


@pytest.mark.spec("EST-CMC-37")
def test_a_message_with_a_digest_that_is_not_accepted_is_refused() -> None:
    sha_224 = pki.sequence(pki.oid("2.16.840.1.101.3.4.2.4"))
    with pytest.raises(BadSignature, match="SHA-256"):
        signed_data.parse(message().replace(Digest.SHA256.identifier, sha_224))


def test_the_bag_is_handed_out_and_bounded() -> None:
    ca = pki.ca()
    bag = [pki.der(pki.leaf(ca)) for _ in range(signed_data.MAX_CERTIFICATES + 1)]
    der = signed_data.build(PKI_DATA, CONTENT, [(SKI, signer())], certificates_der=bag[:3])
    assert sorted(signed_data.parse(der).certificates_der) == sorted(bag[:3])
    with pytest.raises(MalformedBody, match="more than 8"):
        signed_data.parse(signed_data.build(PKI_DATA, CONTENT, [(SKI, signer())], certificates_der=bag))
    with pytest.raises(MalformedBody, match="more than 65536"):
        signed_data.parse(message(content=bytes(signed_data.MAX_OCTETS)))


def test_several_signers_are_the_callers_to_judge_and_bounded() -> None:
    several = [(SubjectKeyIdentifier(bytes([number]) * 20), signer(owner=f"signer {number}")) for number in range(5)]
    parsed = signed_data.parse(signed_data.build(PKI_DATA, CONTENT, several[:4]))
    for each in parsed.signers:
        assert isinstance(each.identifier, SubjectKeyIdentifier)
        signed_data.verify(each, public(owner=f"signer {each.identifier.octets[0]}"))
    with pytest.raises(MalformedBody, match="more than 4"):
        signed_data.parse(signed_data.build(PKI_DATA, CONTENT, several))


def test_a_message_without_signers_is_read_as_one_that_nobody_signed() -> None:
    parsed = signed_data.parse(signed_data.build(PKI_DATA, CONTENT, []))
    assert (parsed.signers, parsed.content) == ((), CONTENT)


def signer_info(*, attributes: bytes | None, unsigned: bytes = b"") -> bytes:
    """A message of data whose one SignerInfo is signed as it should be."""
    content_type = pki.oid(signed_data.DATA)
    own = signer()
    field = b"" if attributes is None else pki.tlv(0xA0, attributes)
    signature = own.sign(CONTENT if attributes is None else pki.tlv(0x31, attributes))
    info = pki.sequence(
        pki.tlv(2, b"\x03"), pki.tlv(0x80, SKI.octets), own.digest.identifier, field, own.algorithm, pki.tlv(4, signature), unsigned
    )
    inner = pki.sequence(
        pki.tlv(2, b"\x03"),
        pki.set_of(own.digest.identifier),
        pki.sequence(content_type, pki.tlv(0xA0, pki.tlv(4, CONTENT))),
        pki.set_of(info),
    )
    return pki.sequence(pki.oid(signed_data.SIGNED_DATA), pki.tlv(0xA0, inner))


RIGHT = (
    pki.attribute("1.2.840.113549.1.9.3", pki.oid(signed_data.DATA)),
    pki.attribute("1.2.840.113549.1.9.4", pki.tlv(4, Digest.SHA256.of(CONTENT))),
)


def test_signed_attributes_are_verified_over_their_der_whatever_order_they_came_in() -> None:
    """RFC 5652 section 5.4: the digest is over the DER of a SET OF, which is sorted."""
    in_order = signer_info(attributes=b"".join(sorted(RIGHT)))
    content = b"".join(sorted(RIGHT))
    reverse = b"".join(sorted(RIGHT, reverse=True))
    for der in (in_order, in_order.replace(content, reverse)):
        [only] = signed_data.parse(der).signers
        signed_data.verify(only, public())


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        (RIGHT[0], "lacks"),
        (RIGHT[1], "lacks"),
        (b"", "lacks"),
        (RIGHT[0] + RIGHT[0] + RIGHT[1], "twice"),
        (pki.attribute("1.2.840.113549.1.9.3", pki.oid(PKI_DATA)) + RIGHT[1], "contentType is not"),
        (RIGHT[0] + pki.attribute("1.2.840.113549.1.9.4", pki.tlv(4, bytes(32))), "messageDigest is not"),
        (RIGHT[0] + pki.attribute("1.2.840.113549.1.9.4"), "cut off"),
        (b"".join(pki.attribute(f"2.999.{number}") for number in range(17)), "more than 16"),
        (b"".join(RIGHT) + pki.attribute("1.2.840.113549.1.9.5", pki.tlv(0x17, b"2601010000Z")), "time"),
    ],
)
def test_wrong_signed_attributes_are_refused(attributes: bytes, says: str) -> None:
    with pytest.raises(EstError, match=says):
        signed_data.parse(signer_info(attributes=attributes))


def test_data_may_be_signed_without_attributes_and_nothing_else() -> None:
    [only] = signed_data.parse(signer_info(attributes=None)).signers
    signed_data.verify(only, public())
    with pytest.raises(MalformedBody, match="no signed attributes"):
        signed_data.parse(signer_info(attributes=None).replace(pki.oid(signed_data.DATA), pki.oid("1.2.840.113549.1.7.9")))


@pytest.mark.spec("THREAT-17")
def test_unsigned_attributes_are_named_and_their_values_go_nowhere() -> None:
    unsigned = pki.tlv(0xA1, pki.attribute("1.2.840.113549.1.9.16.2.34", pki.tlv(4, b"do this")))
    [only] = signed_data.parse(signer_info(attributes=b"".join(RIGHT), unsigned=unsigned)).signers
    assert only.unsigned_attributes == ("1.2.840.113549.1.9.16.2.34",)


@functools.cache
def one_message() -> bytes:
    """The same at every call: signatures differ in length."""
    return signed_data.build(PKI_DATA, CONTENT, [(SKI, signer())], certificates_der=[pki.der(pki.leaf(pki.ca()))])


@given(st.data())
def test_mutants_are_read_or_refused_with_a_sentence(data: st.DataObject) -> None:
    der = bytearray(one_message())
    for position in data.draw(st.lists(st.integers(0, len(der) - 1), min_size=1, max_size=4)):
        der[position] = data.draw(st.integers(0, 255))
    der = der[: data.draw(st.integers(0, len(der)))] + data.draw(st.binary(max_size=4))
    try:
        for each in signed_data.parse(bytes(der)).signers:
            signed_data.verify(each, public())
    except EstError as error:
        if not error.message or "\n" in error.message:
            pytest.fail(f"no sentence: {error.message!r}")


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.ECDSA_P256, KeyAlgorithm.ECDSA_P384, KeyAlgorithm.ECDSA_P521, KeyAlgorithm.RSA_2048])
@pytest.mark.spec("EST-CMC-05")
def test_openssl_verifies_what_we_sign(algorithm: KeyAlgorithm, tmp_path: Path) -> None:
    root = pki.ca()
    certificate = pki.leaf(root, public_key=public(algorithm))
    der = signed_data.build(
        PKI_DATA,
        CONTENT,
        [(by_certificate(certificate), signer(algorithm))],
        certificates_der=[pki.der(certificate)],
        signing_time=pki.EPOCH,
    )
    (tmp_path / "message").write_bytes(der)
    (tmp_path / "root").write_bytes(root.pem)
    done = subprocess.run(
        [
            "openssl",
            "cms",
            "-verify",
            "-inform",
            "DER",
            "-in",
            "message",
            "-CAfile",
            "root",
            "-binary",
            "-no_check_time",
            "-purpose",
            "any",
        ],
        cwd=tmp_path,
        capture_output=True,
    )
    assert (done.returncode, done.stdout) == (0, CONTENT), done.stderr


@pytest.mark.parametrize("by_key", [False, True])
@pytest.mark.parametrize("algorithm", [KeyAlgorithm.ECDSA_P256, KeyAlgorithm.ECDSA_P384, KeyAlgorithm.ECDSA_P521, KeyAlgorithm.RSA_2048])
@pytest.mark.spec("EST-CMC-05")
def test_we_verify_what_openssl_signs(algorithm: KeyAlgorithm, by_key: bool, tmp_path: Path) -> None:
    certificate = pki.leaf(pki.ca(), public_key=public(algorithm))
    (tmp_path / "content").write_bytes(CONTENT)
    (tmp_path / "certificate").write_bytes(certificate.public_bytes(Encoding.PEM))
    (tmp_path / "key").write_bytes(pki.key_pem(pki.key(algorithm, "device")))
    done = subprocess.run(
        ["openssl", "cms", "-sign", "-binary", "-nodetach", "-outform", "DER", "-econtent_type", PKI_DATA, "-md", "sha256"]
        + ["-in", "content", "-signer", "certificate", "-inkey", "key"]
        + (["-keyid"] if by_key else []),
        cwd=tmp_path,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    parsed = signed_data.parse(done.stdout)
    assert (parsed.content_type, parsed.content, parsed.certificates_der) == (PKI_DATA, CONTENT, (pki.der(certificate),))
    [only] = parsed.signers
    ski = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert only.identifier == (SubjectKeyIdentifier(ski) if by_key else by_certificate(certificate))
    signed_data.verify(only, public(algorithm))
