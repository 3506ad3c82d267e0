"""Asks whom an issuer names under `authorization`, after policy and before anything is signed. Fails closed.

`exec` runs a program: facts in EST_… variables, the whole question as JSON on standard input; exit status 0 allows, 1 denies with the
first line of standard output as the text, anything else is a failure. `webhook` gets the question as JSON by HTTPS and answers in JSON.
Both may answer with a narrower template. Shapes: docs/callouts.md.
"""

import asyncio
import json
from typing import Any, Final, Protocol

from estcore import authorization_callout
from estcore.authorization_callout import Answer
from estcore.errors import CalloutFailed, SignerError
from estcore.issuer_spec import Exec, IssuerSpec, Webhook
from estcore.registration import Authorized
from estserver.program_call import Finished, ProgramCalls

ALLOWED: Final = 0
DENIED: Final = 1


class _Asks(Protocol):
    async def ask(self, url: str, *, ca_bundle_pem: str, body: bytes) -> bytes: ...

    async def aclose(self) -> None: ...


class Callouts:
    """The callouts of all issuers of one process. Belongs to one event loop; close it when done."""

    def __init__(self, programs: ProgramCalls) -> None:
        self._programs = programs
        self._webhooks: _Asks | None = None

    async def ask(self, authorized: Authorized, spec: IssuerSpec, *, issuer: str, operation: str, source: str) -> Authorized:
        """The authorization as the issuer's callout leaves it; the same where it names none.

        Raises Forbidden where the answer is no, CalloutFailed where there is none that can be used: its cause is for the log.
        """
        if spec.authorization is None:
            return authorized
        default = spec.policy.duration.default
        question = authorization_callout.question(authorized, issuer=issuer, operation=operation, source=source, default_duration=default)
        try:
            if spec.authorization.exec_ is not None:
                answer = await self._ask_program(spec.authorization.exec_, question)
            else:
                assert spec.authorization.webhook is not None  # noqa: S101 - the spec has exactly one of them
                answer = await self._ask_webhook(spec.authorization.webhook, question)
            return authorization_callout.apply(answer, authorized, default_duration=default)
        except SignerError as error:
            raise CalloutFailed("the authorization service of this issuer gave no answer that can be used; try again later") from error

    async def _ask_program(self, program: Exec, question: dict[str, Any]) -> Answer:
        finished = await self._programs.run(
            program.command, standard_input=json.dumps(question).encode(), environment=_environment(question), within=program.timeout
        )
        return _of_program(finished)

    async def _ask_webhook(self, webhook: Webhook, question: dict[str, Any]) -> Answer:
        if self._webhooks is None:
            from estserver.webhook import Webhooks  # its HTTP client costs a process 15 MB, and most ask nobody

            self._webhooks = Webhooks()
        body = json.dumps(question).encode()
        try:
            async with asyncio.timeout(webhook.timeout.total_seconds()):
                answered = await self._webhooks.ask(webhook.url, ca_bundle_pem=webhook.ca_bundle, body=body)
        except TimeoutError as error:
            raise SignerError(f"the authorization webhook {webhook.url} did not answer within {webhook.timeout}") from error
        return authorization_callout.read_answer(answered)

    async def aclose(self) -> None:
        """Close the connections to webhooks."""
        if self._webhooks is not None:
            await self._webhooks.aclose()


def _of_program(finished: Finished) -> Answer:
    if finished.exit_status == DENIED:
        lines = finished.output.decode(errors="replace").splitlines()
        return Answer(allowed=False, message=lines[0] if lines else "")
    if finished.exit_status != ALLOWED:
        raise SignerError(f"the authorization program ended with exit status {finished.exit_status}; 0 allows and 1 denies")
    if not finished.output.strip():
        return Answer(allowed=True)
    return authorization_callout.read_answer(finished.output)


def _environment(question: dict[str, Any]) -> dict[str, str]:
    """What a short shell script wants to look at; the JSON has all of it. A PEM is the one value of several lines."""
    requester, template = question["requester"], question["template"]
    return {
        "EST_ISSUER": question["issuer"],
        "EST_OPERATION": question["operation"],
        "EST_SOURCE": question["source"],
        "EST_AUTHENTICATED_BY": requester["authenticatedBy"],
        "EST_IDENTITY": requester["identity"],
        "EST_USER": requester["user"] or "",
        "EST_CHANNEL_BINDING": question["channelBinding"],
        "EST_CLIENT_CERTIFICATE": question["clientCertificate"] or "",
        "EST_SUBJECT": template["subject"],
        "EST_SANS": " ".join(template["sans"]),
        "EST_USAGES": ",".join(template["usages"]),
        "EST_KEY_ALGORITHM": template["keyAlgorithm"],
        "EST_DURATION_SECONDS": str(template["durationSeconds"]),
    }
