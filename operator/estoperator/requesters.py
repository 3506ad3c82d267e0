"""Who asks by a Kubernetes object, as the policy sees it, and whether an issuer serves them at all: pure."""

from estcore.requester import AuthenticatedBy, Requester
from estoperator.issuer_state import IssuerState
from estoperator.namespaces import LabelsOf, name_alone
from estoperator.resources import CertRequest, User

SERVICE_ACCOUNT_PREFIX = "system:serviceaccount:"


def requester_of(request: CertRequest, labels_of: LabelsOf = name_alone) -> Requester:
    """Who asks, for the policy: the namespace alone, and of a pod its ServiceAccount and name.

    A tenant can forge the username in an est-issuer.io request, and in a cert-manager.io one where cert-manager's webhook does
    not run (contract 24). A CertificateSigningRequest has no namespace, see `_requester_of_user`.
    """
    if request.user is not None:
        return _requester_of_user(request, request.user, labels_of)
    namespace, pod = request.key.namespace, request.pod
    return Requester(
        authenticated_by=AuthenticatedBy.KUBERNETES,
        identity=namespace,
        door=request.key.door,
        namespace=namespace,
        namespace_labels=labels_of(namespace),
        service_account=pod.service_account if pod is not None else None,
        pod=pod.name if pod is not None else None,
    )


def owner_of(request: CertRequest) -> str:
    """Who pays for the work that a request makes: its namespace, of a CertificateSigningRequest its maker's, and a person by themselves.

    Not the namespace that the request names by its issuer: whoever makes requests names others' at will, or a new one each time. The API
    server writes the username of a CertificateSigningRequest; a colon is in no namespace's name.
    """
    if request.user is None:
        return request.key.namespace
    return _own_account(request.user)[0] or f"user:{request.user.username}"


def serves(issuer: IssuerState, requester: Requester) -> bool:
    """Whether the issuer is there for the requester's namespace at all.

    A person who made a CertificateSigningRequest has none: there it is the approver who says yes, and a rule on users.
    """
    if issuer.ref.namespace or requester.namespace is None:
        return True
    return issuer.allowed_namespaces is not None and issuer.allowed_namespaces.matches(requester.namespace_labels or {})


def not_served(issuer: IssuerState, requester: Requester) -> str:
    """Says what to change."""
    selector = issuer.allowed_namespaces
    says = "is absent, which allows none" if selector is None else f"({selector.query}) does not select it"
    return f"{issuer.ref} does not serve namespace {requester.namespace!r}: its spec.allowedNamespaces {says}"


def _requester_of_user(request: CertRequest, user: User, labels_of: LabelsOf) -> Requester:
    """Who made a CertificateSigningRequest, for the policy.

    With a namespaced issuer it is that issuer's namespace, for which its administrator let the user speak (verb reference); with an
    EstClusterIssuer a ServiceAccount's own namespace, and a person has none: a rule for people names users or groups.
    """
    username = user.username
    own_namespace, service_account = _own_account(user)
    namespace = request.issuer.namespace or own_namespace
    return Requester(
        authenticated_by=AuthenticatedBy.KUBERNETES,
        identity=namespace or username,
        door=request.key.door,
        user=None if namespace else username,
        groups=frozenset() if namespace else frozenset(user.groups),
        namespace=namespace or None,
        namespace_labels=labels_of(namespace) if namespace else None,
        service_account=service_account if own_namespace and own_namespace == namespace else None,
    )


def _own_account(user: User) -> tuple[str, str]:
    """Namespace and name of the ServiceAccount that a user is; both empty for another user."""
    if not user.username.startswith(SERVICE_ACCOUNT_PREFIX):
        return "", ""
    namespace, _, name = user.username.removeprefix(SERVICE_ACCOUNT_PREFIX).partition(":")
    return namespace, name
