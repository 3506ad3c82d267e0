"""What an issuer says of a Secret that the Kubernetes API does not let us read: the remedy only where it is one."""

import pytest

from estserver.kubernetes_api import ApiError
from estserver.secret_uses import SecretReference, SecretUse
from estserver.source_kubernetes import forbidden

REFERENCE = SecretReference(namespace="devices", name="factory-ca", use=SecretUse.CA)
PATH = "/api/v1/namespaces/devices/secrets"
RBAC = (
    f'{PATH}: 403 secrets is forbidden: User "system:serviceaccount:est:estserver" cannot list resource "secrets" in API group "" '
    'in the namespace "devices"'
)
OTHERS = {
    "a quota": (
        403,
        'secrets "factory-ca" is forbidden: exceeded quota: objects, requested: secrets=1, used: secrets=10, limited: secrets=10',
    ),
    "a policy": (
        403,
        "secrets \"factory-ca\" is forbidden: ValidatingAdmissionPolicy 'keys' with binding 'keys' denied request: no keys here",
    ),
    "a webhook": (403, 'admission webhook "secrets.example" denied the request: it cannot be'),
    "a namespace that goes": (
        403,
        'secrets "factory-ca" is forbidden: unable to create new content in namespace devices because it is being terminated',
    ),
    "our token": (401, "Unauthorized"),
}


@pytest.mark.spec("THREAT-26")
def test_a_right_that_is_missing_is_told_with_what_grants_it() -> None:
    error = ApiError(RBAC, status=403)
    assert error.lacks_right
    told = forbidden(REFERENCE, "read", error)
    assert (told.reason, told.message) == (
        "SecretForbidden",
        "estserver may not read Secret devices/factory-ca: add devices to the chart value secretNamespaces",
    )


@pytest.mark.parametrize("what", OTHERS)
def test_whatever_else_says_no_is_told_in_its_own_words(what: str) -> None:
    status, words = OTHERS[what]
    error = ApiError(f"{PATH}: {status} {words}", status=status)
    assert not error.lacks_right
    told = forbidden(REFERENCE, "read", error)
    assert words in told.message
    assert "secretNamespaces" not in told.message
