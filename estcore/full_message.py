"""Opening a Full PKI Request down to its PKIData: the layers that CMC allows around it.

RFC 5272 sections 3.2 and 5. Nothing is believed here: signatures and MACs are kept for who judges them.

    SignedData { PKIData }
    EnvelopedData { SignedData { PKIData } }
    SignedData { EnvelopedData { SignedData { PKIData } } }
    AuthenticatedData { PKIData }

Anything else is refused before anything in it is looked at.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from estcore import authenticated_data, pki_data, signed_data
from estcore.authenticated_data import ID_CT_AUTH_DATA, AuthenticatedData
from estcore.der import INTEGER
from estcore.der_reader import only
from estcore.errors import CmcFailed, CmcFailInfo, MalformedBody
from estcore.pki_data import ID_CCT_PKI_DATA, PkiData
from estcore.signed_data import ENVELOPED_DATA, SIGNED_DATA, SignedData

Decrypt = Callable[[bytes], tuple[str, bytes]]
"""A DER ContentInfo of EnvelopedData → content type and content; raises MalformedBody where it is for nobody here."""

_WHOLE: Final = (0,)


@dataclass(frozen=True, slots=True, kw_only=True)
class FullMessage:
    """A Full PKI Request, opened; nothing in it has been verified.

    `signed` is the SignedData around the PKIData, `outer` the one around its EnvelopedData where there is one. Without `signed` the
    message is `authenticated` by a shared secret.
    """

    body: PkiData
    signed: SignedData | None = None
    outer: SignedData | None = None
    authenticated: AuthenticatedData | None = None


def open_message(content_info_der: bytes, *, decrypt: Decrypt) -> FullMessage:
    """Open the DER ContentInfo of a Full PKI Request.

    Raises MalformedBody where it is none; CmcFailed: badMessageCheck of the whole message where it cannot be decrypted (RFC 5272 section
    3.2.1.3.3), badRequest for a body part with a bad number; BadSignature for a digest that is not accepted.
    """
    content_type, content = signed_data.parse_content_info(content_info_der)
    if content_type == ID_CT_AUTH_DATA:
        message = authenticated_data.parse(content_info_der)
        if message.content_type != ID_CCT_PKI_DATA:
            raise _no_full_request()
        return FullMessage(body=pki_data.parse(message.unverified_content), authenticated=message)
    if content_type == ENVELOPED_DATA:
        return _within(content_info_der, decrypt)
    if content_type != SIGNED_DATA:
        raise _no_full_request()
    signed = signed_data.parse_bare(content)
    if signed.content_type == ENVELOPED_DATA and signed.content is not None:
        return _within(signed_data.content_info(ENVELOPED_DATA, signed.content), decrypt, outer=signed)
    return FullMessage(body=_body(signed), signed=signed)


def _within(enveloped_der: bytes, decrypt: Decrypt, *, outer: SignedData | None = None) -> FullMessage:
    try:
        content_type, content = decrypt(enveloped_der)
    except MalformedBody as error:
        raise CmcFailed(error.message, fail_info=CmcFailInfo.BAD_MESSAGE_CHECK, body_parts=(_WHOLE,), reason="CannotDecrypt") from error
    if content_type != SIGNED_DATA:
        raise _no_full_request()
    # What is encrypted is a SignedData; some put a ContentInfo around it.
    bare = only(content, what="what was encrypted").next_is(INTEGER)
    signed = signed_data.parse_bare(content) if bare else signed_data.parse(content)
    return FullMessage(body=_body(signed), signed=signed, outer=outer)


def _body(signed: SignedData) -> PkiData:
    if signed.content_type != ID_CCT_PKI_DATA or signed.content is None:
        raise _no_full_request()
    return pki_data.parse(signed.content)


def _no_full_request() -> MalformedBody:
    return MalformedBody(
        "the body is no Full PKI Request: it takes PKIData in SignedData or AuthenticatedData, or SignedData in EnvelopedData"
        " (RFC 5272 section 3.2); a PKCS#10 CSR goes to simpleenroll"
    )
