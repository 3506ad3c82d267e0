"""What somebody outside is asked before a certificate is issued, and what the answer may say: yes, no, or less than was asked for.

Asked after policy, so an answer can only take away: a name, a usage, some life. Pure: the question is a JSON object, the answer is read
from one; a program or a webhook carries them. The shape is ours, documented in docs/callouts.md.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estcore.errors import Forbidden, SignerError
from estcore.names import describe_general_name, describe_name
from estcore.registration import Authorized, narrowed
from estcore.usages import Usage
from estcore.visible_text import printable

API_VERSION: Final = "est-issuer.io/v1alpha1"
MAX_ANSWER_OCTETS: Final = 64 * 1024
MAX_DENIAL_CHARACTERS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was answered. Of a narrower template each member may be None: no change. `sans` are written as in the question."""

    allowed: bool
    message: str = ""
    sans: tuple[str, ...] | None = None
    usages: frozenset[Usage] | None = None
    duration: timedelta | None = None


def question(authorized: Authorized, *, issuer: str, operation: str, source: str, default_duration: timedelta) -> dict[str, Any]:
    """The JSON object that is asked: who wants what, all of it verified or permitted already.

    `clientCertificate` is PEM or null; `channelBinding` is "verified" where the CSR held the connection's binding; `request` is the
    base64 of the DER of the CSR, or of a CRMF message.
    """
    requester, csr = authorized.requester, authorized.csr
    bound = csr.challenge_password is not None or csr.identity_linking is not None
    return {
        "apiVersion": API_VERSION,
        "kind": "AuthorizationQuestion",
        "issuer": issuer,
        "operation": operation,
        "source": source,
        "requester": {
            "authenticatedBy": str(requester.authenticated_by),
            "identity": requester.identity,
            "door": str(requester.door),
            "user": requester.user,
            "groups": sorted(requester.groups),
            "namespace": requester.namespace,
            "serviceAccount": requester.service_account,
            "registrationAuthority": requester.registration_authority,
        },
        "clientCertificate": _pem(requester.certificate),
        "channelBinding": "verified" if bound and not requester.registration_authority else "absent",
        "request": base64.b64encode(csr.csr_der).decode(),
        "template": {
            "subject": describe_name(authorized.subject),
            "sans": [describe_general_name(san) for san in authorized.sans],
            "usages": sorted(authorized.usages),
            "keyAlgorithm": str(csr.key_algorithm),
            "durationSeconds": int((csr.duration or default_duration).total_seconds()),
        },
    }


def _pem(certificate: x509.Certificate | None) -> str | None:
    return certificate.public_bytes(Encoding.PEM).decode() if certificate is not None else None


def read_answer(body: bytes) -> Answer:
    """Read the JSON object `{"decision": "allow" | "deny", "message": …, "template": {"sans": […], "usages": […], "durationSeconds": …}}`.

    Strict: an unknown member could be a misspelled restriction. Raises SignerError, for then we cannot tell what was meant.
    """
    if len(body) > MAX_ANSWER_OCTETS:
        raise _wrong(f"it is longer than {MAX_ANSWER_OCTETS} octets")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _wrong("it is not JSON") from error
    if not isinstance(document, dict) or not document.keys() <= {"decision", "message", "template"}:
        raise _wrong("it is an object with decision, and maybe message and template")
    decision, message = document.get("decision"), document.get("message", "")
    if decision not in ("allow", "deny") or not isinstance(message, str):
        raise _wrong("decision is allow or deny, message is text")
    template = document.get("template", {})
    if not isinstance(template, dict) or not template.keys() <= {"sans", "usages", "durationSeconds"}:
        raise _wrong("template is an object with sans, usages and durationSeconds")
    return Answer(allowed=decision == "allow", message=message, **_read_template(template))


def _read_template(template: Mapping[str, Any]) -> dict[str, Any]:
    sans, usages, seconds = (template.get(name) for name in ("sans", "usages", "durationSeconds"))
    for name, value in (("sans", sans), ("usages", usages)):
        if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise _wrong(f"template.{name} is a list of texts")
    if seconds is not None and not (isinstance(seconds, int) and not isinstance(seconds, bool) and 0 < seconds <= 100 * 366 * 86400):
        raise _wrong("template.durationSeconds is a number of seconds")
    try:
        granted = frozenset(Usage(usage) for usage in usages) if usages is not None else None
    except ValueError as error:
        raise _wrong("template.usages holds a usage that does not exist") from error
    return {
        "sans": tuple(sans) if sans is not None else None,
        "usages": granted,
        "duration": timedelta(seconds=seconds) if seconds is not None else None,
    }


def apply(answer: Answer, authorized: Authorized, *, default_duration: timedelta) -> Authorized:
    """The authorization as the answer leaves it.

    Raises Forbidden with the text of a denial; SignerError where the answer names what was not asked for: an answer never widens.
    """
    if not answer.allowed:
        shown = printable(answer.message)[:MAX_DENIAL_CHARACTERS].strip()
        raise Forbidden(shown or "the authorization service of this issuer refused the request", reason="DeniedByCallout")
    if answer.sans is None and answer.usages is None and answer.duration is None:
        return authorized
    described = [(describe_general_name(san), san) for san in authorized.sans]  # two long names may look alike
    asked = frozenset(text for text, _ in described)
    wanted = asked if answer.sans is None else frozenset(answer.sans)
    usages = authorized.usages if answer.usages is None else answer.usages
    duration = authorized.csr.duration or default_duration
    if not wanted <= asked or not usages <= authorized.usages or (answer.duration or duration) > duration:
        raise _wrong("its template holds a name, a usage or a life that was not asked for")
    return narrowed(
        authorized,
        sans=tuple(san for text, san in described if text in wanted),
        usages=usages,
        duration=answer.duration or authorized.csr.duration,
    )


def _wrong(fault: str) -> SignerError:
    return SignerError(f"the answer of the authorization callout cannot be used: {fault}", reason="CalloutFailed")
