"""/csrattrs, and what an issuer that enforces its CSR attributes holds a CSR against.

    who asks → AdviceCache → CsrAdvice → 200 with application/csrattrs, or 204

RFC 7030 section 4.5, RFC 8951 section 4. Who does not authenticate gets the issuer's general answer; who does, what its own rule says.
"""

from dataclasses import replace
from datetime import datetime
from typing import Final

from cachetools import LRUCache

from estcore import csr_following, registration, transfer
from estcore.certification_request import CertificationRequest
from estcore.csr_advice import CsrAdvice, Proofs
from estcore.errors import Forbidden, IssuerNotReady, Unauthenticated
from estcore.issuer_spec import ChannelBinding, CsrAttributes, IssuerSpec
from estcore.requester import AuthenticatedBy, Requester
from estcore.rules import rule_for, values_of
from estserver.authentication import Authenticator
from estserver.issuers import Issuer
from estserver.messages import MEDIA_CSRATTRS, EstRequest, EstResponse

MAX_ISSUERS: Final = 256
MAX_ADVICES_OF_ONE_ISSUER: Final = 512
"""One per rule, and per requester where a rule has placeholders; about 1 KiB each. Deriving one anew takes about a millisecond."""

_KNOWN_BY_THEIR_REQUEST: Final = frozenset({AuthenticatedBy.ONE_TIME_PASSWORD, AuthenticatedBy.CMC_SHARED_SECRET})
"""Their secret is in the CSR or around it, so a GET shows nothing of it."""

NO_WISHES: Final = EstResponse(status=204, body=b"", headers=())


class AdviceCache:
    """What was derived from each issuer's spec, for as long as that very spec is in use."""

    def __init__(self) -> None:
        self._by_issuer: LRUCache[str, tuple[IssuerSpec, LRUCache[object, CsrAdvice]]] = LRUCache(maxsize=MAX_ISSUERS)

    def advice(self, issuer: Issuer, spec: IssuerSpec, requester: Requester | None, *, names: bool = True) -> CsrAdvice:
        """What the issuer wants in a CSR of this requester; None is somebody who did not authenticate."""
        found = self._by_issuer.get(issuer.key)
        if found is None or found[0] is not spec:
            found = spec, LRUCache(maxsize=MAX_ADVICES_OF_ONE_ISSUER)
            self._by_issuer[issuer.key] = found
        advices = found[1]
        who = _what_matters(spec, requester, names=names)
        advice = advices.get(who)
        if advice is None:
            advice = advices[who] = _advice(spec, requester, names=names)
        return advice

    def check(
        self, issuer: Issuer, spec: IssuerSpec, requester: Requester, csr: CertificationRequest, *, names: bool, own_key: bool = True
    ) -> None:
        """Refuse a CSR that ignores the CSR attributes of an issuer that enforces them. Raises BadCsr (CsrAttributesIgnored).

        Without `names` those are not looked for: a renewal asks for the names of its certificate. Without `own_key` neither are key and
        signature, which mean nothing at serverkeygen. A registration authority answers for what it sends; who can prove itself by the
        request only is held against what it was told, which is what anybody is.
        """
        if spec.est.csr_attributes is CsrAttributes.ENFORCED and not requester.registration_authority:
            told_as = None if requester.authenticated_by in _KNOWN_BY_THEIR_REQUEST else requester
            wishes = self.advice(issuer, spec, told_as, names=names).enforced
            csr_following.check_follows(csr, wishes if own_key else replace(wishes, key=None, signature=None))


async def answer(request: EstRequest, issuer: Issuer, advices: AdviceCache, authenticator: Authenticator, *, now: datetime) -> EstResponse:
    """The CSR attributes for whoever asks (RFC 7030 section 4.5.2); 204 where there are none.

    Raises IssuerNotReady; Unauthenticated for credentials that are wrong, but not for a certificate that proves nothing here.
    """
    if issuer.spec is None:
        raise IssuerNotReady("this issuer is not ready; try again later")
    issuer.usable_authority(now=now)
    if issuer.spec.est.csr_attributes is CsrAttributes.NONE:
        return NO_WISHES
    requester = await _requester(request, issuer, authenticator)
    advice = advices.advice(issuer, issuer.spec, requester)
    if advice.is_empty:
        return NO_WISHES
    body = transfer.encode_body(advice.csrattrs_der, wrap=request.wants_wrapped)
    return EstResponse(status=200, body=body, headers=((b"content-type", MEDIA_CSRATTRS),))


async def _requester(request: EstRequest, issuer: Issuer, authenticator: Authenticator) -> Requester | None:
    """Who asks; None for who did not authenticate.

    What was said in an Authorization header was said on purpose, so an error there is told. A client certificate may be there by habit.
    """
    if request.authorization is None and not request.tls.unverified_client_chain:
        return None
    try:
        return await authenticator.enroller(request, issuer)
    except (Unauthenticated, Forbidden):
        if request.authorization is not None:
            raise
        return None


def _what_matters(spec: IssuerSpec, requester: Requester | None, *, names: bool) -> object:
    """Two requesters with the same of this are told the same."""
    if requester is None or requester.registration_authority:
        return requester is None, names
    found = rule_for(requester, spec.policy)
    if found is None:
        return "no rule", names
    place, rule = found
    values = values_of(requester)
    return place, names, tuple((template, values[template]) for template in sorted(rule.patterns.templates))


def _advice(spec: IssuerSpec, requester: Requester | None, *, names: bool) -> CsrAdvice:
    written = spec.est.written_csr_attributes
    proofs = _proofs(spec, requester)
    if written is not None:
        return CsrAdvice.written(written.items, proofs)
    return CsrAdvice.derived(spec.policy, requester, proofs, names=names)


def _proofs(spec: IssuerSpec, requester: Requester | None) -> Proofs:
    """What must be in a CSR of this requester, or in everybody's: attributes that RFC 8951 and RFC 7894 want listed."""
    rules = spec.policy.rules
    if requester is None:
        by_rule = bool(rules) and all(rule.channel_binding is ChannelBinding.REQUIRED for rule in rules)
    else:
        by_rule = registration.binding_required(requester, spec.policy)
    exempt = requester is not None and requester.registration_authority
    return Proofs(
        channel_binding=not exempt and (spec.est.channel_binding is ChannelBinding.REQUIRED or by_rule),
        one_time_password=any(way.one_time_password is not None for way in spec.est.authentication),
    )
