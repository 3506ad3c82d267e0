"""Where an EST server is: origin and label, read from any of the forms of RFC 7030 section 3.1."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from estcore import exchange
from estcore.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One EST service. `host` is an ASCII DNS name in lower case, or an IP literal without brackets."""

    host: str
    port: int
    label: str | None

    @property
    def authority(self) -> str:
        """The value of Host: the port only where it is not 443."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 443 else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme and authority."""
        return f"https://{self.authority}"


def parse(url: str, label: str | None = None) -> Address:
    """Read `https://host[:port]`, or the full base URI `https://host[:port]/.well-known/est[/label]`.

    Raises ConfigurationError for anything else: EST never runs over plain HTTP (RFC 7030 section 3.3).
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, 443 if parts.port is None else parts.port
    except ValueError as error:
        raise ConfigurationError(f"{url!r} is no URL: {error}", field="url") from error
    if parts.scheme != "https":
        raise ConfigurationError(f"{url!r} is no https:// URL; EST runs over TLS only", field="url")
    if not host or not host.isascii() or not 0 < port < 65536:
        raise ConfigurationError(f"{url!r} names no host and port (write an international name as A-labels, xn--…)", field="url")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError("the URL holds a user, a query or a fragment; give scheme, host and port only", field="url")
    return Address(host=host.lower(), port=port, label=_label(parts.path.rstrip("/"), label))


def _label(path: str, label: str | None) -> str | None:
    if path and path != exchange.WELL_KNOWN:
        found = path.removeprefix(exchange.WELL_KNOWN + "/")
        if found == path or "/" in found:
            raise ConfigurationError(f"the path of the URL is neither empty nor {exchange.WELL_KNOWN}[/label]", field="url")
        if label not in (None, found):
            raise ConfigurationError(f"the URL names the label {found}, the setting {label}", field="label")
        label = found
    exchange.target(label, "cacerts")  # raises where it cannot be a label
    return label
