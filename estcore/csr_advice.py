"""What an issuer tells a client about its CSR, and whether a CSR follows it: derived from the policy, or written by hand.

RFC 7030 section 4.5, RFC 8951 section 4, RFC 9908 section 3. Derived from the rule for the requester: names that the rule fixes come with
their values, those that it leaves open are the client's to fill in. Somebody who did not authenticate is told only what holds for
all requesters, and no value of a rule.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from estcore import csr_wishes, csrattrs, rule_names
from estcore.csr_template import ExtensionTemplate
from estcore.csr_vocabulary import EXTENDED_KEY_USAGE, KEY_USAGE, LINKING, OTP_CHALLENGE
from estcore.csr_wishes import SIGNATURE_OF, Wishes, key_wish
from estcore.csrattrs import CsrAttrs
from estcore.policy_spec import Policy
from estcore.requester import Requester
from estcore.rules import rule_for, values_of
from estcore.spec_part import POSSIBLE_KEY_USAGES
from estcore.usages import KEY_USAGES, Usage, extended_key_usage, key_usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Proofs:
    """What the issuer wants a client to prove within its CSR.

    A secret for revocation (RFC 7894 section 3.2) it never needs; an administrator who wants one lists the OID by hand.
    """

    channel_binding: bool = False
    one_time_password: bool = False

    def oids(self) -> Iterable[str]:
        """The attributes to ask for, by OID (RFC 8951 section 4, RFC 7894 section 4)."""
        if self.channel_binding:
            yield from LINKING
        if self.one_time_password:
            yield OTP_CHALLENGE


@dataclass(frozen=True, slots=True, kw_only=True)
class CsrAdvice:
    """The answer to /csrattrs as DER, and what a CSR is held against where following it is enforced."""

    csrattrs_der: bytes
    enforced: Wishes

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to say: 204 (RFC 8951 section 4)."""
        return self.csrattrs_der == csrattrs.NO_WISHES

    @classmethod
    def derived(cls, policy: Policy, requester: Requester | None, proofs: Proofs, *, names: bool = True) -> Self:
        """From the policy, for this requester; None is somebody who did not authenticate.

        Without `names` the names are not spoken of: a renewal asks for those of its certificate, whatever the rules say.
        """
        wishes = derive(policy, requester, proofs, names=names)
        # The signature algorithm is told in the old style only, so a client that goes by the template may have chosen another.
        return cls(csrattrs_der=csrattrs.encode(csr_wishes.write(wishes)), enforced=replace(wishes, signature=None))

    @classmethod
    def written(cls, by_hand: CsrAttrs, proofs: Proofs) -> Self:
        """As somebody wrote it, with what the issuer wants proved if that is not there; raises ValueError for forms that are wrong."""
        missing = tuple(oid for oid in proofs.oids() if oid not in by_hand)
        complete = (*missing, *by_hand)
        return cls(csrattrs_der=csrattrs.encode(complete), enforced=csr_wishes.read(complete))


def derive(policy: Policy, requester: Requester | None, proofs: Proofs, *, names: bool = True) -> Wishes:
    """What the policy wants in a CSR of this requester (None: of anybody)."""
    signatures = {SIGNATURE_OF[algorithm] for algorithm in policy.keys}
    key = key_wish(policy.keys)
    wishes = Wishes(
        key=key,
        signature=signatures.pop() if key is not None and len(signatures) == 1 else None,
        extensions=_usage_extensions(policy),
    ).supply(proofs.oids())
    return _with_names(wishes, policy, requester) if names else wishes


def _with_names(wishes: Wishes, policy: Policy, requester: Requester | None) -> Wishes:
    if requester is None:
        subject = rule_names.open_subject(policy.rules)
        subject_alt_name = rule_names.open_subject_alt_name(policy.rules)
    else:
        found = None if requester.registration_authority else rule_for(requester, policy)
        if found is None:
            return wishes
        values = values_of(requester)
        subject = rule_names.subject(found[1], values)
        subject_alt_name = rule_names.subject_alt_name(found[1], values)
    first = () if subject_alt_name is None else (subject_alt_name,)
    return replace(wishes, subject=subject or None, extensions=(*first, *wishes.extensions))


def _usage_extensions(policy: Policy) -> tuple[ExtensionTemplate, ...]:
    """The keyUsage where all permitted keys can have the same one, and the extendedKeyUsage: what a certificate gets by default."""
    possible = {policy.allowed_usages & POSSIBLE_KEY_USAGES[algorithm] for algorithm in policy.keys}
    extended = policy.allowed_usages - KEY_USAGES
    extensions = []
    if len(possible) == 1 and (asked := key_usage(possible.pop())):
        extensions.append(ExtensionTemplate(oid=KEY_USAGE, critical=True, value=asked.public_bytes()))
    if purposes := extended_key_usage(extended):
        # timestamping stands alone (RFC 3161 section 2.3): of several the client must choose.
        one_for_all = Usage.TIMESTAMPING not in extended or len(extended) == 1
        extensions.append(
            ExtensionTemplate(
                oid=EXTENDED_KEY_USAGE,
                critical=extended == {Usage.TIMESTAMPING},
                value=purposes.public_bytes() if one_for_all else None,
            )
        )
    return tuple(extensions)
