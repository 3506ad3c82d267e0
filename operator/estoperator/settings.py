"""The operator's settings: environment variables with the prefix EST_OPERATOR_."""

import secrets
import socket
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from estcore.errors import ConfigurationError
from estcore.issuer_spec import Duration
from estcore.requester import Door
from estoperator.doors import DOORS
from estoperator.est_server import TIMEOUT

POLL_SECONDS = int(TIMEOUT.total_seconds()) + 1
"""How long one poll of estserver may take: its timeout, and what the process itself is late."""


class Settings(BaseSettings):
    """Every default is safe; what has none must be set."""

    model_config = SettingsConfigDict(env_prefix="EST_OPERATOR_", frozen=True)

    server_url: Annotated[str, Field(pattern=r"^https://[^/?#@\s]+$")]
    """estserver: scheme, host and port."""

    server_anchors_file: Path = Path("/etc/est-issuer/serving-ca/ca.crt")
    """PEM trust anchors of estserver's certificate; may appear later, and is reread."""

    token_file: Path = Path("/var/run/secrets/est-issuer/token")
    """ServiceAccount token with audience est-issuer; reread."""

    namespace: Annotated[str, Field(min_length=1)]
    """Where the Lease is: the install namespace."""

    lease_name: Annotated[str, Field(min_length=1)] = "est-issuer-operator"
    identity: Annotated[str, Field(min_length=1)] = Field(default_factory=lambda: f"{socket.gethostname()}-{secrets.token_hex(4)}")
    """This replica in the Lease: the pod's name."""

    doors: Annotated[tuple[Door, ...], NoDecode] = tuple(DOORS)
    """The Kubernetes doors that are on, separated by commas."""

    cluster_trust_bundles: bool = True
    """Whether issuers' trust is published as ClusterTrustBundles, where the API server has them and RBAC permits it."""

    trust_config_maps: bool = False
    """Whether issuers may have their trust published as ConfigMaps, which takes the right to write any ConfigMap."""

    admission_policy: str = ""
    """Name of the chart's ValidatingAdmissionPolicy and its binding; while they hold, spec.username of our own requests is believed."""

    cert_manager_webhook: str = "cert-manager-webhook"
    """Name of cert-manager's ValidatingWebhookConfiguration; while it holds, spec.username of its requests is believed."""

    workers: Annotated[int, Field(ge=1, le=256)] = 16
    """Requests in work at once."""

    max_retry_duration: Duration = Field(default="10m", validate_default=True)
    """How long a retryable error is retried before the request is Failed."""

    relist_interval: Duration = Field(default="5m", validate_default=True)
    poll_interval: Duration = Field(default="2s", validate_default=True)
    server_unavailable_after: Duration = Field(default="30s", validate_default=True)
    """How long estserver may be silent before the issuers' conditions say so."""

    http_host: str = "0.0.0.0"  # noqa: S104  # a pod's probes come from outside it
    http_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Health and metrics, plain HTTP. 0 takes a free port, which the log names."""

    log_format: Literal["json", "console"] = "json"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("server_unavailable_after")
    @classmethod
    def _outlasts_one_poll(cls, value: timedelta, info: ValidationInfo) -> timedelta:
        if "poll_interval" in info.data:
            least = int(info.data["poll_interval"].total_seconds()) + POLL_SECONDS
            if value.total_seconds() < least:
                raise ValueError(
                    f"one poll that fails would make every issuer Unknown: write {least}s or more, which is "
                    f"EST_OPERATOR_POLL_INTERVAL and the {POLL_SECONDS}s that a poll may take"
                )
        return value

    @field_validator("doors", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("doors")
    @classmethod
    def _kubernetes_doors_only(cls, doors: tuple[Door, ...]) -> tuple[Door, ...]:
        for door in doors:
            if door not in DOORS:
                raise ValueError(f"{door} is not one of {', '.join(DOORS)}")
        return tuple(dict.fromkeys(doors))


def load() -> Settings:
    """The settings from the environment; raises ConfigurationError that names the variable."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = "_".join(str(step) for step in first["loc"][:1]).upper()
        raise ConfigurationError(first["msg"].removeprefix("Value error, "), where="environment", field=f"EST_OPERATOR_{field}") from error
