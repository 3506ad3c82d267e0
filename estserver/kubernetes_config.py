"""Where the Kubernetes API is and who we are there: the Pod's ServiceAccount, or a kubeconfig file for development and tests."""

import base64
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import yaml

from estcore.errors import ConfigurationError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """How to reach the API: `url` without a trailing slash, `ssl_context` with its trust anchors (and client key, where there is one).

    `token` is asked at each request, because the kubelet replaces the file about once an hour; None where a client key says who we are.
    """

    url: str
    ssl_context: ssl.SSLContext
    token: Callable[[], str] | None


def in_cluster(environ: Mapping[str, str] = os.environ, directory: Path = SERVICE_ACCOUNT) -> ClusterConfig:
    """The Pod's own ServiceAccount; raises ConfigurationError outside of a Pod or without a mounted token."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (directory / "token").is_file():
        raise ConfigurationError(f"not in a Pod with a ServiceAccount token in {directory}; use --kubeconfig", where="--kubernetes")
    return ClusterConfig(
        url=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        ssl_context=ssl.create_default_context(cafile=str(directory / "ca.crt")),
        token=lambda: _read_token(directory / "token"),
    )


def install_namespace(directory: Path = SERVICE_ACCOUNT) -> str | None:
    """The Pod's namespace, None outside of a Pod."""
    try:
        return (directory / "namespace").read_text().strip()
    except OSError:
        return None


def from_kubeconfig(file: Path) -> ClusterConfig:
    """The current context of a kubeconfig: token, token file or client certificate. Raises ConfigurationError for anything else."""
    where = str(file)
    try:
        config = yaml.safe_load(file.read_bytes())
        context = _named(config, "contexts", config["current-context"])["context"]
        cluster = _named(config, "clusters", context["cluster"])["cluster"]
        user = _named(config, "users", context["user"])["user"]
        url = str(cluster["server"]).rstrip("/")
        ssl_context = _ssl_context(cluster, user, file.parent)
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", where=where) from error
    except (yaml.YAMLError, LookupError, TypeError, ValueError, ssl.SSLError) as error:
        raise ConfigurationError(f"not a kubeconfig with a current context ({type(error).__name__}: {error})", where=where) from error
    if user.get("tokenFile"):
        token_file = file.parent / user["tokenFile"]
        return ClusterConfig(url=url, ssl_context=ssl_context, token=lambda: _read_token(token_file))
    if user.get("token"):
        token = str(user["token"])
        return ClusterConfig(url=url, ssl_context=ssl_context, token=lambda: token)
    if "exec" in user or "auth-provider" in user:
        raise ConfigurationError("credential plugins are not run; use a token or a client certificate", where=where, field="users")
    return ClusterConfig(url=url, ssl_context=ssl_context, token=None)


def _named(config: Mapping[str, Any], collection: str, name: str) -> Mapping[str, Any]:
    for entry in config[collection]:
        if entry["name"] == name:
            found: Mapping[str, Any] = entry
            return found
    raise LookupError(f"{collection} has no {name}")


def _ssl_context(cluster: Mapping[str, Any], user: Mapping[str, Any], base: Path) -> ssl.SSLContext:
    authority = _pem(cluster, "certificate-authority", base)
    context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    certificate, key = _pem(user, "client-certificate", base), _pem(user, "client-key", base)
    if certificate and key:
        # The ssl module takes a client key from a file only: one of mode 0600 that is gone after this line.
        with NamedTemporaryFile() as pair:
            pair.write(certificate + b"\n" + key)
            pair.flush()
            context.load_cert_chain(pair.name)
    return context


def _pem(entry: Mapping[str, Any], member: str, base: Path) -> bytes | None:
    if entry.get(f"{member}-data"):
        return base64.b64decode(entry[f"{member}-data"])
    return (base / entry[member]).read_bytes() if entry.get(member) else None


def _read_token(file: Path) -> str:
    return file.read_text().strip()
