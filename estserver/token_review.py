"""Who a ServiceAccount token is, asked of the API server (authentication.k8s.io/v1 TokenReview)."""

from collections.abc import Collection
from datetime import timedelta

import structlog

from estcore.errors import Unavailable
from estserver.kubernetes_api import ApiError, KubernetesApi
from estserver.tokens import ReviewedToken

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
TRY_AGAIN = timedelta(seconds=5)

log = structlog.get_logger(__name__)


class KubernetesTokenReviewer:
    """Asks for exactly our audiences and believes only an answer that names one of them (threats row 25).

    A server that knows nothing of audiences would authenticate any token and leave `status.audiences` empty: that is nobody here.
    """

    def __init__(self, api: KubernetesApi) -> None:
        self._api = api

    async def review(self, token: str, *, audiences: Collection[str]) -> ReviewedToken | None:
        """None where the token is not authentic for any of `audiences`. Raises Unavailable when the API server cannot be asked."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": sorted(audiences)},
        }
        try:
            status = (await self._api.create(TOKEN_REVIEWS, body)).get("status") or {}
        except ApiError as error:
            log.warning("a ServiceAccount token could not be checked", error=str(error))
            raise Unavailable("ServiceAccount tokens cannot be checked now; try again", retry_after=TRY_AGAIN) from error
        confirmed = frozenset(status.get("audiences") or ()) & frozenset(audiences)
        if status.get("authenticated") is not True or status.get("error") or not confirmed:
            return None
        user = status.get("user") or {}
        return ReviewedToken(username=str(user.get("username", "")), groups=frozenset(user.get("groups") or ()), audiences=confirmed)
