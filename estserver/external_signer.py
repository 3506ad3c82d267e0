"""Has a program sign: `signer: {exec: …}` of an issuer whose key is elsewhere, in an `openssl ca`, a token, a service.

The program gets the CSR as PEM on standard input, or the public key of a request in CRMF, which has no PEM form; facts in EST_… variables,
and the order as JSON in EST_ORDER. It writes the certificate as PEM to standard output and ends with 0. Checked by
estcore.external_signature before anybody gets it.
"""

import json
from datetime import datetime

from estcore import external_signature, transfer
from estcore.authority import Authority, Issued
from estcore.certification_request import CertificationRequest, RequestForm
from estcore.errors import CalloutFailed, SignerError
from estcore.external_signature import SigningOrder
from estcore.issuer_spec import Exec, Policy
from estcore.registration import Authorized
from estserver.program_call import ProgramCalls


async def sign(
    programs: ProgramCalls, program: Exec, authority: Authority, authorized: Authorized, policy: Policy, *, issuer: str, now: datetime
) -> Issued:
    """The certificate that the program signed, as it was ordered.

    Raises what the profile raises; CalloutFailed where the program failed or returned anything else: its cause is for the log.
    """
    order = external_signature.order(authority, authorized, policy, now=now)
    try:
        finished = await programs.run(
            program.command, standard_input=_request(order.csr), environment=_environment(order, issuer), within=program.timeout
        )
        if finished.exit_status != 0:
            raise SignerError(f"the signing program ended with exit status {finished.exit_status}")
        return external_signature.accept(authority, order, finished.output, now=now)
    except SignerError as error:
        raise CalloutFailed("the signer of this issuer returned no certificate that can be used; try again later") from error


def _request(csr: CertificationRequest) -> bytes:
    """RFC 7468 sections 7 and 13."""
    if csr.form is RequestForm.CRMF:
        return transfer.encode_pem("PUBLIC KEY", csr.spki_der)
    return transfer.encode_pem("CERTIFICATE REQUEST", csr.csr_der)


def _environment(order: SigningOrder, issuer: str) -> dict[str, str]:
    described = external_signature.describe(order)
    return {
        "EST_ISSUER": issuer,
        "EST_REQUEST_FORM": order.csr.form,
        "EST_ORDER": json.dumps(described),
        "EST_SUBJECT": described["subject"],
        "EST_SANS": ",".join(described["sans"]),
        "EST_USAGES": ",".join(described["usages"]),
        "EST_NOT_BEFORE": described["notBefore"],
        "EST_NOT_AFTER": described["notAfter"],
    }
