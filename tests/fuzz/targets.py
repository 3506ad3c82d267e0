"""What is fuzzed: every decoder of octets from outside. A target takes any octets and raises nothing but what its callers expect.

`run.py` has atheris look for octets that raise something else (`make fuzz`); `test_replay.py` gives each target its committed corpus again.
Nothing here depends on time or randomness, so that what was found is found again.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from estcore import (
    auth_enveloped_data,
    authenticated_data,
    authorization_callout,
    certs_only,
    cmc_control_codec,
    crmf,
    csr_builder,
    csr_template,
    csrattrs,
    der,
    digest_authentication,
    enveloped_data,
    exchange,
    full_exchange,
    full_message,
    full_processing,
    general_names,
    http_authentication,
    identity_proof,
    instructions,
    key_package,
    multipart,
    names,
    pkcs10,
    pki_data,
    pki_response,
    pop_challenge,
    ra_witness,
    signed_data,
    smime_capabilities,
    template_modification,
    transfer,
)
from estcore.attribute import Attribute
from estcore.errors import EstError
from estcore.exchange import HttpResponse
from estcore.recipient_info import KeyEncryptionKey, RecipientKey
from estcore.signed_data import SubjectKeyIdentifier
from estserver import authorization_header, http_head, tokens
from estserver.limits import Limits

Target = Callable[[bytes], None]

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PRIVATE_KEY = ec.derive_private_key(0x1F2E3D4C5B6A79889786756453423120, ec.SECP256R1())
"""Fixed, so that a message for it stays one."""
PASSWORD = b"correct horse battery"
WRAPPING_KEY = KeyEncryptionKey(key=bytes(range(16)), key_identifier=b"kek-1")
DECRYPTION_KEYS = (RecipientKey(private_key=PRIVATE_KEY, identifiers=(SubjectKeyIdentifier(bytes(20)),)), WRAPPING_KEY)
REQUEST = pkcs10.parse(csr_builder.build(PRIVATE_KEY, subject=x509.Name([]), sans=[x509.DNSName("a.example")]))
CA_NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Factory CA")])
LIMITS = Limits()
CONSTRUCTED = 0x20


def _pkcs10(data: bytes) -> None:
    for parse in (
        pkcs10.parse,
        lambda octets: pkcs10.parse(octets, accept_no_signature=True),
        lambda octets: pkcs10.parse_for_key(octets, PRIVATE_KEY.public_key()),
    ):
        with suppress(EstError):
            parse(data)


def _der(data: bytes) -> None:
    """What was checked can be read to its last value."""
    with suppress(EstError):
        der.check(data, what="it")
        ranges = [(0, len(data))]
        while ranges:
            position, limit = ranges.pop()
            while position < limit:
                identifier, content, position = der.read(data, position, limit, what="it")
                if identifier & CONSTRUCTED:
                    ranges.append((content, position))


def _transfer(data: bytes) -> None:
    with suppress(EstError):
        decoded = transfer.decode_body(data)
        for wrap in (False, True):
            assert transfer.decode_body(transfer.encode_body(decoded, wrap=wrap)) == decoded


def _csrattrs(data: bytes) -> None:
    with suppress(EstError):
        for item in csrattrs.decode(data):
            if isinstance(item, Attribute):
                for value in item.values:
                    with suppress(EstError):
                        csr_template.Template.decode(value)
                with suppress(EstError):
                    csr_template.decode_extensions(item)


def _names(data: bytes) -> None:
    for decode in (names.parse_name, general_names.parse_general_names):
        with suppress(EstError):
            decode(data)


def _signed_data(data: bytes) -> None:
    for parse in (signed_data.parse, signed_data.parse_bare):
        with suppress(EstError):
            for signer in parse(data).signers:
                with suppress(EstError):
                    signed_data.verify(signer, PRIVATE_KEY.public_key(), allow_no_signature=True)


def _pki_data(data: bytes) -> None:
    with suppress(EstError):
        parsed = pki_data.parse(data)
        for control in parsed.controls:
            with suppress(EstError):
                cmc_control_codec.read(control)
    for parse in (pki_response.parse, pki_response.parse_message):
        with suppress(EstError):
            parse(data)


def _controls(data: bytes) -> None:
    """The first octet chooses a control; the rest is its value."""
    if not data:
        return
    control = pki_data.TaggedAttribute(body_part_id=1, attr_type=f"1.3.6.1.5.5.7.7.{data[0]}", values_der=(data[1:],))
    with suppress(EstError):
        cmc_control_codec.read(control)
    for parse in (identity_proof.parse_v1, identity_proof.parse_v2, pop_challenge.parse_decrypted_pop, ra_witness.parse_pop_witness):
        with suppress(EstError):
            parse(data[1:])
    with suppress(EstError):
        pop_challenge.parse_encrypted_pop(data[1:])


def _crmf(data: bytes) -> None:
    with suppress(EstError):
        crmf.parse(data, now=NOW)


def _template(data: bytes) -> None:
    """A modCertTemplate or an addExtensions of a registration authority, applied to a request."""
    for parse in (template_modification.parse_mod_cert_template, template_modification.parse_add_extensions):
        with suppress(EstError):
            placed = template_modification.Placed(layer=(), body_part_id=9, modification=parse(data))
            template_modification.apply_all({(1,): REQUEST}, [placed], now=NOW)


def _enveloped_data(data: bytes) -> None:
    for decrypt in (enveloped_data.decrypt, auth_enveloped_data.decrypt):
        with suppress(EstError):
            decrypt(data, DECRYPTION_KEYS)


def _authenticated_data(data: bytes) -> None:
    with suppress(EstError):
        authenticated_data.verify(authenticated_data.parse(data), PASSWORD, accept_sha1=True)


def _certs_only(data: bytes) -> None:
    with suppress(EstError):
        certs_only.decode(data)


def _authorization(data: bytes) -> None:
    """An Authorization header, as every parser behind it takes it; and a challenge, as our client does."""
    text = data.decode("latin-1")
    scheme, credentials = authorization_header.parse(text)
    assert scheme == scheme.lower()
    for decode in (authorization_header.parse_basic, digest_authentication.parse_credentials):
        with suppress(EstError):
            decode(credentials)
    with suppress(EstError):
        tokens._claims_expiry(credentials, frozenset({"est-issuer"}), now=NOW)
    with suppress(EstError):
        http_authentication.parse_challenges([text])


def _http_head(data: bytes) -> None:
    """Request target, then a header a line."""
    target, *lines = data.split(b"\n")
    with suppress(http_head.Refusal):
        path, _ = http_head.check_target(target)
        assert path.startswith(b"/")
    headers = [(name.lower(), value) for name, _, value in (line.partition(b":") for line in lines)]
    for version in ("1.0", "1.1", "2"):
        with suppress(http_head.Refusal):
            framing = http_head.check_headers(headers, version, LIMITS)
            assert framing.content_length is None or 0 <= framing.content_length <= LIMITS.body_octets


def _answer(data: bytes) -> None:
    """What a server answers to our client: status, Content-Type, Retry-After and body, a line each."""
    status, content_type, retry_after, body = (data.split(b"\n", 3) + [b""] * 4)[:4]
    response = HttpResponse(
        status=int(status[:3]) if status[:3].isdigit() else 200,
        headers={"content-type": content_type.decode("latin-1"), "retry-after": retry_after.decode("latin-1")},
        body=body,
    )
    with suppress(EstError):
        exchange.read_ca_certs(response, now=NOW)
    with suppress(EstError):
        exchange.check_status(response, now=NOW)


def _multipart(data: bytes) -> None:
    """Content-Type on the first line, the body after it."""
    content_type, _, body = data.partition(b"\n")
    for header in (content_type.decode("latin-1"), "multipart/mixed; boundary=b"):
        with suppress(EstError):
            parts = multipart.decode(header, body)
            assert multipart.decode(*multipart.encode(parts)) == parts


def _key_package(data: bytes) -> None:
    for decode in (key_package.decode, key_package.load_private_key, smime_capabilities.parse):
        with suppress(EstError):
            decode(data)


def _callout(data: bytes) -> None:
    """What a program or a webhook answers, when it is asked whether to issue."""
    with suppress(EstError):
        authorization_callout.read_answer(data)


def _full_response(data: bytes) -> None:
    """What a server answers to a Full PKI Request: Content-Type on the first line, the DER after it."""
    content_type, _, der_body = data.partition(b"\n")
    for status in (200, 400):
        headers = {"content-type": content_type.decode("latin-1")}
        response = HttpResponse(status=status, headers=headers, body=transfer.encode_body(der_body))
        with suppress(EstError):
            full_exchange.read_full_response(response, ca_certificates=(), now=NOW, sender_nonce=None, transaction_id=None)


def _full_request(data: bytes) -> None:
    """A whole Full PKI Request, as the server opens it."""
    with suppress(EstError):
        message = full_message.open_message(data, decrypt=lambda der_message: enveloped_data.decrypt(der_message, DECRYPTION_KEYS))
        for registration_authority in (False, True):
            with suppress(EstError):
                instructions.read_instructions(message.body, registration_authority=registration_authority, path=(), processed=())
        full_processing.read_requests(message.body, ca_name=CA_NAME, now=NOW)


TARGETS: dict[str, Target] = {
    "pkcs10": _pkcs10,
    "der": _der,
    "transfer": _transfer,
    "csrattrs": _csrattrs,
    "names": _names,
    "signed_data": _signed_data,
    "pki_data": _pki_data,
    "controls": _controls,
    "crmf": _crmf,
    "template": _template,
    "enveloped_data": _enveloped_data,
    "authenticated_data": _authenticated_data,
    "certs_only": _certs_only,
    "authorization": _authorization,
    "http_head": _http_head,
    "answer": _answer,
    "multipart": _multipart,
    "key_package": _key_package,
    "callout": _callout,
    "full_response": _full_response,
    "full_request": _full_request,
}
