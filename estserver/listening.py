"""Sockets that the program binds before anything else starts, so that an address in use is told at once."""

import socket

from estcore.errors import ConfigurationError
from estserver.settings import Settings, parse_address

BACKLOG = 1024


def bind(address: str, *, option: str = "--listen") -> socket.socket:
    """A socket bound to `host:port`, not yet listening. Raises ConfigurationError that names the option."""
    host, port = parse_address(address)
    try:
        family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # [::] is every address, IPv4 too
        sock.bind(target)
    except OSError as error:
        raise ConfigurationError(f"cannot listen: {error.strerror or error}", where=f"{option} {address}") from error
    sock.settimeout(0)
    return sock


def url(sock: socket.socket) -> str:
    """Where a client on this machine reaches it."""
    host, port = sock.getsockname()[:2]
    return f"https://{f'[{host}]' if ':' in host else host}:{port}"


def public_url(settings: Settings, sockets: list[socket.socket]) -> str:
    """Base of the issuers' URLs: what the administrator says, else the first name of our certificate."""
    if settings.public_url is not None:
        return settings.public_url
    name = settings.serving_names[0]
    return f"https://{f'[{name}]' if ':' in name else name}:{sockets[0].getsockname()[1]}"
