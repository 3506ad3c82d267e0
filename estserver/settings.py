"""Settings of the program `estserver serve`: options, else environment variables `EST_…`, else a safe default.

What is an issuer's is in the issuer's manifest; here is what an administrator says about the server. A list in a variable is
separated by commas; a duration is written like a manifest's (`10m`, `1h30m`).
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from estcore.errors import ConfigurationError
from estcore.issuer_spec import OPERATIONS, parse_duration
from estserver.labels import RegistrySettings
from estserver.limits import Limits
from estserver.serving_certificate import subject_alternative_names

KUBERNETES_STATE = Path("/var/lib/est-issuer")
LIMIT_PREFIX = "EST_LIMIT_"
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
MAX_WORKERS = 64
SHORTEST_OUTAGE = timedelta(minutes=2)  # a healthy API server is silent for a minute, and a broken watch is noticed after 75 seconds


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _duration(value: object) -> timedelta:
    return timedelta(0) if value in {"0", "0s", 0} else parse_duration(value)


def _outage(value: timedelta) -> timedelta:
    if timedelta(0) < value < SHORTEST_OUTAGE:
        raise ValueError("write 2m or longer, or 0 for ever: a Kubernetes API with no news speaks once a minute, which is no outage")
    return value


def _pairs(value: object) -> object:
    """`label=namespace/name,…` → a mapping; a mapping as it is."""
    if not isinstance(value, str | tuple | list):
        return value
    parts = _split(value) if isinstance(value, str) else value
    pairs = [str(part).partition("=") for part in parts or ()]  # type: ignore[attr-defined]  # _split gives a tuple for text
    if any(not equals for _, equals, _ in pairs):
        raise ValueError("write label=namespace/name")
    if len({label for label, _, _ in pairs}) < len(pairs):
        raise ValueError("a label is there twice")
    return {label: issuer for label, _, issuer in pairs}


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Duration = Annotated[timedelta, BeforeValidator(_duration)]
NamespacedName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._:]{0,61}[A-Za-z0-9])?$")]


class Settings(BaseSettings):
    """One field an option; docs/configuration.md holds the same list."""

    model_config = SettingsConfigDict(env_prefix="EST_", frozen=True, extra="forbid", hide_input_in_errors=True, env_ignore_empty=True)

    config: Path | None = None
    kubernetes: bool = False
    kubeconfig: Path | None = None
    state: Path | None = None
    listen: Names = ("127.0.0.1:8443",)
    metrics_listen: str = "127.0.0.1:8080"
    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = 1
    ledger: Annotated[str | None, Field(repr=False)] = None
    server_name: Names = ()
    public_url: Annotated[str | None, Field(pattern=r"^https://[^\s/?#]+$")] = None
    release: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?$")] = "est-issuer"
    namespace: str | None = None
    serving_secret: str | None = None
    serving_certificate: Path | None = None
    serving_key: Path | None = None
    trust_namespaces: Names = ()
    ra_service_accounts: Annotated[tuple[NamespacedName, ...], NoDecode, BeforeValidator(_split)] = ()
    ra_audience: Annotated[str, Field(min_length=1, max_length=253)] = "est-issuer"
    labels: Annotated[dict[Label, NamespacedName], NoDecode, BeforeValidator(_pairs)] = {}
    default_issuer: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9-]+/[a-z0-9][-a-z0-9.]*$")] = None
    throttle_sources: bool = True
    retry_window: Duration = timedelta(minutes=10)
    longest_outage: Annotated[Duration, AfterValidator(_outage)] = timedelta(hours=1)
    approval_objects: bool = True
    approval_retention: Duration = timedelta(days=90)
    drain: Duration = timedelta(seconds=30)
    drain_delay: Duration = timedelta(0)
    log_format: Literal["json", "keyvalue"] | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.config is None) == (not self.kubernetes):
            raise ValueError("give exactly one of --config DIR and --kubernetes")
        if self.kubeconfig is not None and not self.kubernetes:
            raise ValueError("--kubeconfig goes with --kubernetes")
        if (self.serving_certificate is None) != (self.serving_key is None):
            raise ValueError("--serving-certificate and --serving-key go together")
        if self.serving_secret and (self.serving_certificate or not self.kubernetes):
            raise ValueError("--serving-secret goes with --kubernetes and without --serving-certificate")
        if self.labels.keys() & OPERATIONS:
            raise ValueError(f"--map-label: {min(self.labels.keys() & OPERATIONS)} is the name of an EST operation")
        return self

    @property
    def state_directory(self) -> Path:
        """Where the server keeps its own files."""
        if self.state is not None:
            return self.state
        return self.config / "state" if self.config is not None else KUBERNETES_STATE

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger."""
        return self.ledger or f"sqlite:///{self.state_directory.absolute() / 'ledger.sqlite'}"

    @property
    def serving_names(self) -> tuple[str, ...]:
        """Names of our own certificate. From a directory the server is a person's own: this machine's names are among them."""
        local = (*LOCAL_NAMES, *_host_names()) if self.config is not None or not self.server_name else ()
        return tuple(dict.fromkeys((*self.server_name, *local)))

    def registry(self, *, install_namespace: str) -> RegistrySettings:
        """What `issuers.build` must know."""
        return RegistrySettings(
            labels=self.labels, default_issuer=self.default_issuer, cluster_namespace=install_namespace, directory=self.config is not None
        )


def load(options: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> tuple[Settings, Limits]:
    """Settings from `options` (those that were given), else the environment, else defaults.

    Raises ConfigurationError with one sentence that names the option.
    """
    given = {name: value for name, value in options.items() if value not in (None, (), [])}
    if environ.get("EST_METRICS_LISTEN") == "":  # any other empty variable is none; this one says: nowhere
        given.setdefault("metrics_listen", "")
    try:
        settings = Settings(**given)
        subject_alternative_names(settings.serving_names)
        if not settings.listen:
            raise ConfigurationError("name an address to listen on, such as 127.0.0.1:8443", where=_option(("listen",)))
        for address in (*settings.listen, *filter(None, (settings.metrics_listen,))):
            parse_address(address)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ConfigurationError(first["msg"].removeprefix("Value error, "), where=_option(first["loc"])) from error
    except SettingsError as error:
        raise ConfigurationError(str(error)) from error
    return settings, _limits(environ)


def _option(location: tuple[int | str, ...]) -> str:
    """`--listen (EST_LISTEN)`; empty for a fault of several options together, whose text names them."""
    if not location:
        return ""
    name = str(location[0])
    return f"--{OPTIONS.get(name, name).replace('_', '-')} (EST_{name.upper()})"


OPTIONS = {"trust_namespaces": "trust_namespace", "ra_service_accounts": "ra_service_account", "labels": "map_label"}
"""Fields whose option is given once for each member, so is named in the singular."""


def _limits(environ: Mapping[str, str]) -> Limits:
    known: dict[str, type[int | float]] = {field.name: int if isinstance(field.default, int) else float for field in fields(Limits)}
    given: dict[str, Any] = {}
    for variable, text in environ.items():
        if not variable.startswith(LIMIT_PREFIX):
            continue
        name = variable.removeprefix(LIMIT_PREFIX).lower()
        if name not in known:
            raise ConfigurationError(f"there is no such limit; there are {', '.join(known)}", where=variable)
        try:
            given[name] = known[name](text)
        except ValueError as error:
            raise ConfigurationError(f"write a number ({known[name].__name__})", where=variable) from error
    try:
        return Limits(**given)
    except ValueError as error:
        raise ConfigurationError(str(error), where=f"{LIMIT_PREFIX}…") from error


def parse_address(text: str) -> tuple[str, int]:
    """`127.0.0.1:8443`, `[::1]:8443`, `localhost:0` → host and port; raises ConfigurationError."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not host or not port.isdigit() or int(port) > 65535 or (":" in host and not text.startswith("[")):
        raise ConfigurationError(f"{text[:64]!r} is not host:port, such as 127.0.0.1:8443 or [::]:8443", where="--listen")
    return host, int(port)


def _host_names() -> tuple[str, ...]:
    """This machine's own name, where it can stand in a certificate."""
    name = socket.gethostname().lower()
    try:
        subject_alternative_names((name,))
    except ConfigurationError:
        return ()
    return (name,)
