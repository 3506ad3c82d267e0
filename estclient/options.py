"""Credentials from the options of the command line: exactly one kind of them."""

import os
from getpass import getpass
from pathlib import Path

from estclient import files
from estclient.credentials import Basic, Bearer, ClientCertificate, Credentials
from estcore.errors import ConfigurationError

PASSWORD_VARIABLE = "EST_PASSWORD"


def one_time_password_from(path: Path | None) -> str | None:
    """The one-time password in the first line of a file; raises ConfigurationError."""
    return None if path is None else files.read_line(path, what="one-time password")


def credentials_from(
    *, user: str | None, password_file: Path | None, cert: Path | None, key: Path | None, token_file: Path | None
) -> Credentials:
    """Basic by --user, a client certificate by --cert and --key, or a bearer token by --token-file; raises ConfigurationError.

    There is no option for the password itself: every user of the machine could read it in the list of processes.
    """
    if sum(option is not None for option in (user, cert, token_file)) != 1:
        raise ConfigurationError("authenticate by exactly one of --user, --cert with --key, and --token-file")
    if (cert is None) != (key is None):
        raise ConfigurationError("--cert and --key belong together")
    if password_file is not None and user is None:
        raise ConfigurationError("--password-file belongs to --user")
    if user is not None:
        return Basic(user=user, password=_password(password_file))
    if token_file is not None:
        files.read(token_file, what="token")  # a wrong path is told now, not when the connection stands
        return Bearer(token=lambda: files.read_line(token_file, what="token"))
    if cert is None or key is None:
        raise ConfigurationError("--cert and --key belong together")
    return ClientCertificate(chain_pem=files.read(cert, what="certificate"), key_pem=files.read(key, what="private key"))


def _password(password_file: Path | None) -> str:
    if password_file is not None:
        return files.read_line(password_file, what="password")
    from_environment = os.environ.get(PASSWORD_VARIABLE)
    return getpass("Password: ") if from_environment is None else from_environment
