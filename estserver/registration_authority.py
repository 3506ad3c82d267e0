"""The registration authority that a ServiceAccount token shows, and who else a token shows."""

from dataclasses import dataclass

from estcore.requester import AuthenticatedBy, Requester
from estserver.tokens import ServiceAccount


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationAuthority:
    """Whose token is accepted at every issuer: `<namespace>/<name>` of ServiceAccounts, and the audience their tokens have."""

    service_accounts: frozenset[str] = frozenset()
    audience: str = "est-issuer"

    def is_shown_by(self, account: ServiceAccount) -> bool:
        """Whether this token's owner is one, by a token of the right audience."""
        return self.audience in account.audiences and account.full_name in self.service_accounts


def service_account(account: ServiceAccount, *, registration_authority: bool = False) -> Requester:
    """The requester that a reviewed token shows."""
    return Requester(
        authenticated_by=AuthenticatedBy.SERVICE_ACCOUNT_TOKEN,
        identity=account.full_name,
        user=account.username,
        groups=account.groups,
        namespace=account.namespace,
        service_account=account.name,
        registration_authority=registration_authority,
    )
