"""RFC 5652 section 9 as RFC 5272 section 3.2 uses it: OpenSSL comes to the same keys and MACs, and every bad message is refused."""

import subprocess
from time import process_time

import pytest
from asn1crypto import cms, core

from estcore import authenticated_data, der, der_reader, proof_algorithms, pwri_kek
from estcore.errors import CmcFailed, CmcFailInfo, EstError, MalformedBody
from tests import pki

PKI_DATA = "1.3.6.1.5.5.7.12.2"
CONTENT = pki.sequence(*[pki.sequence()] * 4)
NAME, SECRET = "gerät-17", "correct horse battery"
PASSWORD = (NAME + SECRET).encode()
SALT, MAC_KEY = bytes(range(16)), bytes(range(100, 132))
ITERATIONS = 1000


def message(password: bytes = PASSWORD, content: bytes = CONTENT) -> bytes:
    return authenticated_data.build(content, PKI_DATA, password, salt=SALT, mac_key=MAC_KEY, iterations=ITERATIONS)


def opened(der_message: bytes, password: bytes = PASSWORD, *, accept_sha1: bool = False) -> bytes:
    return authenticated_data.verify(authenticated_data.parse(der_message), password, accept_sha1=accept_sha1)


def refusal(der_message: bytes, password: bytes = PASSWORD) -> CmcFailed:
    with pytest.raises(CmcFailed) as raised:
        opened(der_message, password)
    assert SECRET not in raised.value.message
    return raised.value


def openssl(*arguments: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, check=True, timeout=60).stdout


# ---- a second implementation: asn1crypto for the shape, the openssl command for every calculation


def openssl_hmac(digest: str, key: bytes, data: bytes) -> bytes:
    return openssl("dgst", f"-{digest}", "-mac", "HMAC", "-macopt", f"hexkey:{key.hex()}", "-binary", stdin=data)


def openssl_pbkdf2(digest: str, password: bytes, salt: bytes, iterations: int, octets: int) -> bytes:
    options = (f"digest:{digest}", f"hexpass:{password.hex()}", f"hexsalt:{salt.hex()}", f"iter:{iterations}")
    arguments = [word for option in options for word in ("-kdfopt", option)]
    return bytes.fromhex(openssl("kdf", "-keylen", str(octets), *arguments, "PBKDF2").decode().replace(":", ""))


def openssl_wrap(bits: int, key: bytes, octets: bytes, *, decrypt: bool) -> bytes:
    direction = ["-d"] if decrypt else []
    return openssl("enc", f"-id-aes{bits}-wrap", *direction, "-K", key.hex(), "-iv", "A6" * 8, stdin=octets)


def made_elsewhere(
    *,
    password: bytes = PASSWORD,
    iterations: int = ITERATIONS,
    prf: str = "sha256",
    wrap: str = "aes256_wrap",
    mac: str = "sha256",
    mac_key: bytes = MAC_KEY,
    content: bytes = CONTENT,
    content_type: str = PKI_DATA,
    attributed_type: str = PKI_DATA,
    attributed_content: bytes | None = None,
    key_length: int | None = None,
    version: int = 0,
) -> bytes:
    """An AuthenticatedData by asn1crypto and OpenSSL; the arguments say in what it departs from a good one."""
    bits = int(wrap[3:6])
    key = openssl_pbkdf2(prf, password, SALT, min(iterations, 10_000), bits // 8)
    parameters = {"salt": core.OctetString(SALT), "iteration_count": iterations, "prf": {"algorithm": prf}}
    if key_length is not None:
        parameters["key_length"] = key_length
    recipient = cms.PasswordRecipientInfo(
        {
            "version": 0,
            "key_derivation_algorithm": {"algorithm": "pbkdf2", "parameters": parameters},
            "key_encryption_algorithm": {"algorithm": wrap},
            "encrypted_key": openssl_wrap(bits, key, mac_key, decrypt=False),
        }
    )
    digest = openssl("dgst", f"-{mac}", "-binary", stdin=content if attributed_content is None else attributed_content)
    attributes = cms.CMSAttributes(
        [
            {"type": "content_type", "values": [attributed_type]},
            {"type": "message_digest", "values": [digest]},
        ]
    )
    body = cms.AuthenticatedData(
        {
            "version": "v0",
            "recipient_infos": [cms.RecipientInfo("pwri", recipient)],
            "mac_algorithm": {"algorithm": mac},
            "digest_algorithm": {"algorithm": mac},
            "encap_content_info": {"content_type": content_type, "content": cms.ParsableOctetString(content)},
            "auth_attrs": attributes,
            "mac": openssl_hmac(mac, mac_key, attributes.untag().dump()),
        }
    )
    encoded: bytes = cms.ContentInfo({"content_type": "authenticated_data", "content": body}).dump()
    return encoded


# ---- both ways against it


@pytest.mark.spec("EST-CMC-09", "EST-CMC-37")
def test_openssl_verifies_what_is_built() -> None:
    content_info = cms.ContentInfo.load(message(), strict=True)
    assert content_info["content_type"].native == "authenticated_data"
    body = content_info["content"]
    [recipient] = body["recipient_infos"]
    assert recipient.name == "pwri"
    derivation = recipient.chosen["key_derivation_algorithm"]
    parameters = derivation["parameters"]
    assert (derivation["algorithm"].native, parameters["prf"]["algorithm"].native) == ("pbkdf2", "sha256")
    assert recipient.chosen["key_encryption_algorithm"]["algorithm"].native == "aes256_wrap"
    key = openssl_pbkdf2("sha256", PASSWORD, parameters["salt"].native, parameters["iteration_count"].native, 32)
    mac_key = openssl_wrap(256, key, recipient.chosen["encrypted_key"].native, decrypt=True)
    assert mac_key == MAC_KEY
    attributes = body["auth_attrs"]
    assert openssl_hmac("sha256", mac_key, attributes.untag().dump()) == body["mac"].native
    values = {attribute["type"].native: attribute["values"][0].native for attribute in attributes}
    assert values == {"content_type": PKI_DATA, "message_digest": openssl("dgst", "-sha256", "-binary", stdin=CONTENT)}
    assert body["encap_content_info"]["content"].native == CONTENT
    assert body["version"].native == "v0"
    assert content_info.dump(force=True) == message()


@pytest.mark.spec("EST-CMC-09", "EST-CMC-37")
@pytest.mark.parametrize(
    "departure",
    [
        {},
        {"wrap": "aes128_wrap"},
        {"wrap": "aes192_wrap"},
        {"prf": "sha512", "mac": "sha512"},
        {"prf": "sha384", "mac": "sha384"},
        {"key_length": 32},
        {"mac_key": bytes(16)},
        {"iterations": 1},
    ],
)
def test_what_openssl_made_verifies(departure: dict[str, object]) -> None:
    assert opened(made_elsewhere(**departure)) == CONTENT  # type: ignore[arg-type]  # the table's keywords


@pytest.mark.spec("EST-CMC-09")
def test_the_password_is_the_identifier_and_then_the_secret() -> None:
    """T-26: the identity proof has them the other way round."""
    assert authenticated_data.key_derivation_input(NAME, SECRET) == NAME.encode() + SECRET.encode()
    assert opened(made_elsewhere(), authenticated_data.key_derivation_input(NAME, SECRET)) == CONTENT
    assert refusal(made_elsewhere(), (SECRET + NAME).encode()).fail_info is CmcFailInfo.BAD_MESSAGE_CHECK


@pytest.mark.spec("EST-CMC-09", "THREAT-17")
@pytest.mark.parametrize(
    "departure",
    [
        pytest.param({"password": b"another"}, id="another password"),
        pytest.param({"attributed_content": b"0\x00"}, id="the digest of another content"),
        pytest.param({"attributed_type": "1.3.6.1.5.5.7.12.3"}, id="attributes that speak of another content type"),
        pytest.param({"content_type": "1.3.6.1.5.5.7.12.3"}, id="a content type that the attributes do not speak of"),
    ],
)
def test_what_does_not_fit_is_a_bad_message_check(departure: dict[str, object]) -> None:
    assert refusal(made_elsewhere(**departure)).fail_info is CmcFailInfo.BAD_MESSAGE_CHECK  # type: ignore[arg-type]


@pytest.mark.spec("EST-CMC-37")
@pytest.mark.parametrize("departure", [{"prf": "sha1"}, {"mac": "sha1"}])
def test_sha1_is_accepted_only_where_the_policy_says_so(departure: dict[str, object]) -> None:
    old = made_elsewhere(**departure)  # type: ignore[arg-type]
    assert opened(old, accept_sha1=True) == CONTENT
    assert refusal(old).fail_info is CmcFailInfo.BAD_ALG


@pytest.mark.spec("EST-CMC-09", "THREAT-17")
@pytest.mark.parametrize("iterations", [0, -1, 100_001, 1 << 31, 1 << 63, 1 << 400])
def test_a_count_of_iterations_that_nobody_needs_is_refused_before_any_work(iterations: int) -> None:
    bomb = replaced(message(), core.Integer(ITERATIONS).dump(), core.Integer(iterations).dump())
    start = process_time()
    assert refusal(bomb).fail_info is CmcFailInfo.BAD_ALG
    assert process_time() - start < 0.05


@pytest.mark.spec("EST-CMC-09")
@pytest.mark.parametrize("key_length", [16, 24, 31, 33, 1 << 20])
def test_a_key_length_that_the_key_wrap_has_not_is_refused(key_length: int) -> None:
    assert refusal(made_elsewhere(key_length=key_length)).fail_info is CmcFailInfo.BAD_ALG


# ---- PWRI-KEK, which is all that OpenSSL and Bouncy Castle have for a password


def test_the_key_that_openssl_wrapped_by_a_password_is_unwrapped() -> None:
    """RFC 3211, by OpenSSL's EnvelopedData: it has no AuthenticatedData, and the recipient is the same."""
    plain = b"what was encrypted"
    command = ["cms", "-encrypt", "-binary", "-outform", "DER", "-aes-256-cbc", "-pwri_password", SECRET]
    enveloped = cms.ContentInfo.load(openssl(*command, stdin=plain))["content"]
    recipient = enveloped["recipient_infos"][0].chosen
    algorithm = der_reader.only(recipient["key_encryption_algorithm"].dump(), what="the algorithm")
    assert algorithm.oid() == pwri_kek.PWRI_KEK_OID
    parameters = pwri_kek.read_parameters(algorithm)
    assert parameters is not None
    key_octets, iv = parameters
    derivation = der_reader.Reader(recipient["key_derivation_algorithm"].untag().contents, what="the derivation")
    pbkdf2 = proof_algorithms.read_pbkdf2(derivation, accept_sha1=True, what="the recipient")
    key = pbkdf2.derive(SECRET.encode(), key_octets=key_octets)
    content_key = pwri_kek.unwrap(recipient["encrypted_key"].native, key_encryption_key=key, iv=iv)
    info = enveloped["encrypted_content_info"]
    content_iv = info["content_encryption_algorithm"]["parameters"].native
    arguments = ["enc", "-d", "-aes-256-cbc", "-K", content_key.hex(), "-iv", content_iv.hex()]
    assert openssl(*arguments, stdin=info["encrypted_content"].native) == plain


def cbc(key: bytes, iv: bytes, octets: bytes) -> bytes:
    return openssl("enc", f"-aes-{8 * len(key)}-cbc", "-nopad", "-K", key.hex(), "-iv", iv.hex(), stdin=octets)


def pwri_kek_message(*, check: bytes | None = None, count: int | None = None, cipher: str = "2.16.840.1.101.3.4.1.42") -> bytes:
    """The message with its MAC key wrapped by PWRI-KEK, RFC 3211 section 2.3.1 step by step with OpenSSL's AES-CBC."""
    iv = bytes(range(200, 216))
    key = openssl_pbkdf2("sha256", PASSWORD, SALT, ITERATIONS, 32)
    check = bytes(octet ^ 0xFF for octet in MAC_KEY[:3]) if check is None else check
    block = bytes((len(MAC_KEY) if count is None else count,)) + check + MAC_KEY + bytes(12)
    inner = cbc(key, iv, block)
    wrapped = cbc(key, inner[-16:], inner)
    identifier = pki.sequence(pki.oid("1.2.840.113549.1.9.16.3.9"), pki.sequence(pki.oid(cipher), pki.tlv(0x04, iv)))
    whole = message()
    [recipient] = cms.ContentInfo.load(whole)["content"]["recipient_infos"]
    derivation = pki.tlv(0xA0, recipient.chosen["key_derivation_algorithm"].untag().contents)
    return replaced(whole, recipient.dump(), pki.tlv(0xA3, b"\x02\x01\x00", derivation, identifier, pki.tlv(0x04, wrapped)))


@pytest.mark.spec("EST-CMC-09")
def test_a_mac_key_wrapped_by_pwri_kek_is_taken() -> None:
    assert opened(pwri_kek_message()) == CONTENT
    assert refusal(pwri_kek_message(), (SECRET + NAME).encode()).fail_info is CmcFailInfo.BAD_MESSAGE_CHECK


@pytest.mark.spec("EST-CMC-09", "THREAT-17")
@pytest.mark.parametrize(
    ("departure", "fail_info"),
    [
        pytest.param({"check": bytes(3)}, CmcFailInfo.BAD_MESSAGE_CHECK, id="a wrong check value"),
        pytest.param({"count": 0}, CmcFailInfo.BAD_MESSAGE_CHECK, id="an empty key"),
        pytest.param({"count": 3}, CmcFailInfo.BAD_MESSAGE_CHECK, id="a key of 3 octets"),
        pytest.param({"count": 200}, CmcFailInfo.BAD_MESSAGE_CHECK, id="a key longer than what is there"),
        pytest.param({"cipher": "1.2.840.113549.3.7"}, CmcFailInfo.BAD_ALG, id="3DES"),
    ],
)
def test_a_mac_key_that_pwri_kek_does_not_give_is_refused(departure: dict[str, object], fail_info: CmcFailInfo) -> None:
    assert refusal(pwri_kek_message(**departure)).fail_info is fail_info  # type: ignore[arg-type]


def replaced(der_message: bytes, old: bytes, new: bytes) -> bytes:
    """The message with one value exchanged, and all lengths around it made right again."""
    assert der_message.count(old) == 1

    def rebuilt(value: bytes) -> bytes:
        if value == old:
            return new
        identifier, start, _ = der.read(value, 0, len(value), what="the message")
        if old not in value or not identifier & 0x20:
            return value
        parts = []
        while start < len(value):
            *_, end = der.read(value, start, len(value), what="the message")
            parts.append(rebuilt(value[start:end]))
            start = end
        return pki.tlv(identifier, *parts)

    changed = rebuilt(der_message)
    assert new in changed
    return changed


AES256_WRAP = pki.sequence(pki.oid("2.16.840.1.101.3.4.1.45"))
HMAC_SHA256 = pki.sequence(pki.oid("1.2.840.113549.2.9"))
SHA256_TAGGED = pki.tlv(0xA1, pki.oid("2.16.840.1.101.3.4.2.1"))


def test_the_rebuilding_of_this_module_changes_nothing_else() -> None:
    assert replaced(message(), AES256_WRAP, AES256_WRAP) == message()


@pytest.mark.spec("EST-CMC-09", "THREAT-17")
@pytest.mark.parametrize(
    ("old", "new", "fail_info"),
    [
        pytest.param(AES256_WRAP, pki.sequence(pki.oid("2.16.840.1.101.3.4.1.42")), CmcFailInfo.BAD_ALG, id="AES-CBC for the key wrap"),
        pytest.param(AES256_WRAP, pki.sequence(pki.oid("1.2.840.113549.1.9.16.3.6")), CmcFailInfo.BAD_ALG, id="3DES wrap"),
        pytest.param(HMAC_SHA256, pki.sequence(pki.oid("1.2.840.113549.2.8")), CmcFailInfo.BAD_ALG, id="HMAC-SHA224"),
        pytest.param(HMAC_SHA256, pki.sequence(pki.oid("2.16.840.1.101.3.4.2.1")), CmcFailInfo.BAD_ALG, id="a hash for the MAC"),
        pytest.param(SHA256_TAGGED, pki.tlv(0xA1, pki.oid("1.2.840.113549.2.5")), CmcFailInfo.BAD_ALG, id="MD5 of the content"),
        pytest.param(pki.oid("1.2.840.113549.1.5.12"), pki.oid("1.2.840.113549.1.5.13"), CmcFailInfo.BAD_ALG, id="PBES2 for PBKDF2"),
        pytest.param(pki.tlv(0x04, SALT), pki.sequence(pki.oid("1.2.3")), CmcFailInfo.BAD_ALG, id="a salt from elsewhere"),
        pytest.param(pki.tlv(0x04, SALT), b"\x04\x00", CmcFailInfo.BAD_ALG, id="an empty salt"),
        pytest.param(pki.tlv(0x04, SALT), pki.tlv(0x04, bytes(1025)), CmcFailInfo.BAD_ALG, id="a salt of more than 1,024 octets"),
    ],
)
def test_other_algorithms_are_refused(old: bytes, new: bytes, fail_info: CmcFailInfo) -> None:
    if old == HMAC_SHA256:  # the macAlgorithm; the PRF has NULL parameters
        assert message().count(old) == 1
    assert refusal(replaced(message(), old, new)).fail_info is fail_info


def recipients(*values: bytes) -> bytes:
    """The message with other recipientInfos."""
    [own] = [each.dump() for each in cms.ContentInfo.load(message())["content"]["recipient_infos"]]
    return replaced(message(), pki.tlv(0x31, own), pki.tlv(0x31, *(value or own for value in values)))


KEKRI = pki.tlv(0xA2, b"\x02\x01\x04", pki.sequence(pki.tlv(0x04, b"id")), AES256_WRAP, pki.tlv(0x04, bytes(40)))


@pytest.mark.spec("EST-CMC-09")
@pytest.mark.parametrize("values", [(KEKRI,), (b"", KEKRI), (b"", b""), (b"",) * 50])
def test_the_one_recipient_is_a_password(values: tuple[bytes, ...]) -> None:
    with pytest.raises(CmcFailed, match="recipient") as raised:
        authenticated_data.parse(recipients(*values))
    assert raised.value.fail_info is CmcFailInfo.BAD_REQUEST


@pytest.mark.spec("EST-CMC-09", "THREAT-08")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("auth_attrs", None, id="no authenticated attributes"),
        pytest.param("digest_algorithm", None, id="no digest algorithm"),
    ],
)
def test_attributes_are_there_for_every_content_but_id_data(field: str, value: object) -> None:
    content_info = cms.ContentInfo.load(message())
    body = content_info["content"]
    body[field] = value
    changed = cms.ContentInfo({"content_type": "authenticated_data", "content": body}).dump(force=True)
    with pytest.raises(MalformedBody, match="authAttrs"):
        authenticated_data.parse(changed)


@pytest.mark.spec("THREAT-08")
def test_a_message_cut_off_anywhere_is_malformed() -> None:
    whole = message()
    for end in range(len(whole)):
        with pytest.raises(MalformedBody):
            authenticated_data.parse(whole[:end])


@pytest.mark.spec("EST-CMC-09", "THREAT-17")
def test_every_flipped_bit_is_noticed() -> None:
    whole = message()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1
        with pytest.raises(EstError):
            opened(bytes(changed))


@pytest.mark.spec("THREAT-17")
def test_attributes_that_no_mac_covers_are_kept_apart() -> None:
    attribute = pki.attribute("1.2.840.113549.1.9.16.2.34", pki.sequence())
    whole = message()
    mac_value = pki.tlv(0x04, cms.ContentInfo.load(whole)["content"]["mac"].native)
    content_type = authenticated_data.parse(whole).content_type
    body_end = replaced(whole, mac_value, mac_value + pki.tlv(0xA3, attribute))
    parsed = authenticated_data.parse(body_end)
    assert parsed.unauthenticated_attributes_der == attribute
    assert authenticated_data.verify(parsed, PASSWORD) == CONTENT
    assert content_type == parsed.content_type


@pytest.mark.spec("EST-CMC-09")
@pytest.mark.parametrize("mac_key", [b"", bytes(8), bytes(15)])
def test_a_short_mac_key_is_not_sent(mac_key: bytes) -> None:
    with pytest.raises(ValueError, match="MAC key"):
        authenticated_data.build(CONTENT, PKI_DATA, PASSWORD, salt=SALT, mac_key=mac_key, iterations=1)


def test_a_message_shows_no_key_and_no_secret() -> None:
    shown = repr(authenticated_data.parse(message()))
    assert MAC_KEY.hex() not in shown
    assert "_mac" not in shown
