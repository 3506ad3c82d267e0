"""What the Kubernetes API answers instead of doing as asked. Raised by `cluster` alone.

KubernetesError     everything else: no connection, 403, 422, 429, 5xx; the same may pass later
├── Stale           409: the object is no longer the version that was judged; read it and decide again
└── Gone            404: the object is not there any more
"""

from estcore.errors import EstError


class KubernetesError(EstError):
    """The API server could not be asked, or refused. Try again later; an administrator may have to act (`http_status`)."""

    reason = "KubernetesError"

    def __init__(self, message: str, *, http_status: int = 0) -> None:
        super().__init__(message)
        self.http_status = http_status


class Stale(KubernetesError):
    """The object changed since it was read."""

    reason = "Stale"


class Gone(KubernetesError):
    """The object was deleted."""

    reason = "Gone"
