"""Credentials from the options of the command line: one kind of them, or a certificate and a password."""

import os
from enum import StrEnum
from getpass import getpass
from pathlib import Path

from estclient import files
from estclient.credentials import Basic, Bearer, CertificateAndPassword, ClientCertificate, Credentials, Digest
from estcore.errors import ConfigurationError

PASSWORD_VARIABLE = "EST_PASSWORD"


def one_time_password_from(path: Path | None) -> str | None:
    """The one-time password in the first line of a file; raises ConfigurationError."""
    return None if path is None else files.read_line(path, what="one-time password")


class PasswordScheme(StrEnum):
    """How a password is shown to the server."""

    BASIC = "basic"
    DIGEST = "digest"


def credentials_from(
    *,
    user: str | None,
    password_file: Path | None,
    cert: Path | None,
    key: Path | None,
    token_file: Path | None,
    scheme: PasswordScheme = PasswordScheme.BASIC,
) -> Credentials:
    """A password by --user, a client certificate by --cert and --key, both, or a bearer token by --token-file.

    There is no option for the password itself: every user of the machine could read it in the list of processes. Raises
    ConfigurationError.
    """
    if (user is None and cert is None) == (token_file is None):
        raise ConfigurationError("authenticate by --user, by --cert with --key, by both, or by --token-file alone")
    if (cert is None) != (key is None):
        raise ConfigurationError("--cert and --key belong together")
    if password_file is not None and user is None:
        raise ConfigurationError("--password-file belongs to --user")
    if token_file is not None:
        files.read(token_file, what="token")  # a wrong path is told now, not when the connection stands
        return Bearer(token=lambda: files.read_line(token_file, what="token"))
    certificate = None
    if cert is not None and key is not None:
        certificate = ClientCertificate(chain_pem=files.read(cert, what="certificate"), key_pem=files.read(key, what="private key"))
    if user is None:
        assert certificate is not None  # noqa: S101 - one of both is there
        return certificate
    kind = Digest if scheme is PasswordScheme.DIGEST else Basic
    password = kind(user=user, password=_password(password_file))
    return password if certificate is None else CertificateAndPassword(certificate=certificate, password=password)


def _password(password_file: Path | None) -> str:
    if password_file is not None:
        return files.read_line(password_file, what="password")
    from_environment = os.environ.get(PASSWORD_VARIABLE)
    return getpass("Password: ") if from_environment is None else from_environment
