"""The registration authority that a ServiceAccount token shows: whose token it is, and on whose behalf it asks."""

import re
from dataclasses import dataclass, replace

from estcore.errors import BadHeader
from estcore.requester import AuthenticatedBy, Door, Requester
from estserver.tokens import ServiceAccount

# door/namespace/name/uid: names by RFC 1123 as the Kubernetes API checks them, the uid a UUID
_IDEMPOTENCY_KEY = re.compile(
    r"(?P<door>cert-manager\.io|est-issuer\.io)/(?P<namespace>[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)"
    r"/(?P<name>[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?)/(?P<uid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationAuthority:
    """Whose token is accepted at every issuer: `<namespace>/<name>` of ServiceAccounts, and the audience their tokens have."""

    service_accounts: frozenset[str] = frozenset()
    audience: str = "est-issuer"

    def is_shown_by(self, account: ServiceAccount) -> bool:
        """Whether this token's owner is one, by a token of the right audience."""
        return self.audience in account.audiences and account.full_name in self.service_accounts


def service_account(account: ServiceAccount) -> Requester:
    """The requester that a reviewed token shows."""
    return Requester(
        authenticated_by=AuthenticatedBy.SERVICE_ACCOUNT_TOKEN,
        identity=account.full_name,
        user=account.username,
        groups=account.groups,
        namespace=account.namespace,
        service_account=account.name,
    )


def vouching(account: ServiceAccount, idempotency_key: str | None) -> Requester:
    """The registration authority, or whom it asks for: the Kubernetes object that its Idempotency-Key names. Raises BadHeader."""
    if idempotency_key is None:
        return replace(service_account(account), registration_authority=True)
    match = _IDEMPOTENCY_KEY.fullmatch(idempotency_key)
    if match is None:
        raise BadHeader("Idempotency-Key is <door>/<namespace>/<name>/<uid>, the door cert-manager.io or est-issuer.io")
    return Requester(
        authenticated_by=AuthenticatedBy.KUBERNETES,
        identity=match["namespace"],
        door=Door(match["door"]),
        namespace=match["namespace"],
        registration_authority=True,
    )
