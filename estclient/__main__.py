"""`est`: fetch CA certificates and CSR attributes, enrol, have a key made, renew.

What went wrong is one sentence on stderr and an exit code; passwords, tokens and keys are never shown.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from cryptography import x509
from rich.console import Console

from estclient import display, enrolment, files, keyfile, wishes_table
from estclient.client import EstClient
from estclient.credentials import Credentials
from estclient.decryption import decryption_key_from
from estclient.enrolment import Enrolment, Wanted
from estclient.options import PasswordScheme, credentials_from, one_time_password_from
from estcore import csr_wishes
from estcore.errors import (
    ConfigurationError,
    EstError,
    MalformedResponse,
    Pending,
    Refused,
    ServerUnavailable,
    UntrustedServer,
)
from estcore.issuer_spec import KeyAlgorithm
from estcore.usages import Usage

EXIT_CODES: dict[type[EstError], int] = {
    ConfigurationError: 2,
    Refused: 3,
    Pending: 4,
    ServerUnavailable: 5,
    UntrustedServer: 6,
    MalformedResponse: 7,
}

EPILOG = (
    "Exit codes: 0 done; 2 wrong option, file or key; 3 refused by the server; 4 waits for approval, run the same command again; "
    "5 server cannot be reached or is busy; 6 server not trusted; 7 server's answer is not EST."
)

app = typer.Typer(
    name="est",
    help="EST client (RFC 7030): fetch CA certificates and CSR attributes, enrol, renew.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a pretty traceback prints local variables, and some of them are secrets
    rich_markup_mode=None,
)
console = Console()
T = TypeVar("T")


class ChannelBinding(StrEnum):
    """Whether a CSR is linked to its TLS connection."""

    ON = "on"
    OFF = "off"


Url = Annotated[str, typer.Option(envvar="EST_URL", help="https://host[:port], or the full base URL with /.well-known/est[/label].")]
Anchors = Annotated[Path, typer.Option(envvar="EST_ANCHORS", help="PEM file of the CA certificates that the server must chain to.")]
Label = Annotated[str | None, typer.Option(envvar="EST_LABEL", help="Which of the server's issuers; its default one when left out.")]
Timeout = Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds for each exchange with the server.")]
Binding = Annotated[ChannelBinding, typer.Option(help="Link the CSR to its TLS connection (RFC 7030 section 3.5).")]
Certificate = Annotated[Path | None, typer.Option(help="PEM file of a client certificate (and its intermediates) to authenticate with.")]
User = Annotated[str | None, typer.Option(help="User name for HTTP Basic or Digest.")]
Auth = Annotated[
    PasswordScheme,
    typer.Option(help="How the password is shown: basic sends it at once, digest answers the server's challenge with a hash."),
]
PasswordFile = Annotated[
    Path | None, typer.Option(help="File with the password in its first line; else EST_PASSWORD, else it is asked for.")
]
TokenFile = Annotated[Path | None, typer.Option(help="File of a bearer token, such as a projected ServiceAccount token.")]
Key = Annotated[Path | None, typer.Option(help="PEM file of that certificate's private key.")]

Subject = Annotated[str, typer.Option(help="Subject in RFC 4514 form, such as CN=device-7,O=Factory.")]
Dns = Annotated[list[str] | None, typer.Option(help="dNSName; may be repeated.")]
Ip = Annotated[list[str] | None, typer.Option(help="iPAddress; may be repeated.")]
Uri = Annotated[list[str] | None, typer.Option(help="URI; may be repeated.")]
Usages = Annotated[
    list[Usage] | None,
    typer.Option(metavar="USAGE", help="Key usage such as 'client auth'; may be repeated. The issuer's policy when left out."),
]


@app.command(epilog=EPILOG)
def cacerts(
    url: Url,
    anchors: Anchors,
    label: Label = None,
    out: Annotated[Path | None, typer.Option(help="Where to write them as PEM; stdout shows a table in any case.")] = None,
    timeout: Timeout = 30,
) -> None:
    """Fetch the issuer's CA certificates."""
    with _one_sentence_errors():
        bag = _run(_client(url, anchors, label, None, timeout), lambda client: client.ca_certs())
        if out is not None:
            files.write(out, enrolment.pem(bag))
        console.print(display.table("CA certificates", [display.Column(heading=f"{n}", certificate=ca) for n, ca in enumerate(bag, 1)]))


@app.command(epilog=EPILOG)
def csrattrs(
    url: Url,
    anchors: Anchors,
    label: Label = None,
    user: User = None,
    password_file: PasswordFile = None,
    auth: Auth = PasswordScheme.BASIC,
    cert: Certificate = None,
    key: Key = None,
    token_file: TokenFile = None,
    timeout: Timeout = 30,
) -> None:
    """Show what the issuer wants in a CSR; of whoever authenticates, by its own rule."""
    with _one_sentence_errors():
        credentials = None
        if _any(user, password_file, cert, key, token_file):
            credentials = credentials_from(user=user, password_file=password_file, cert=cert, key=key, token_file=token_file, scheme=auth)
        items = _run(_client(url, anchors, label, credentials, timeout), lambda client: client.csr_attrs())
        wishes = csr_wishes.read(items)
        console.print(wishes_table.table(wishes) if items else "the issuer wants nothing in particular", markup=False)


@app.command(epilog=EPILOG)
def enroll(
    url: Url,
    anchors: Anchors,
    out_dir: Annotated[Path, typer.Option(help="Folder for tls.key (mode 0600), tls.crt (leaf first) and ca.crt.")],
    label: Label = None,
    user: User = None,
    password_file: PasswordFile = None,
    auth: Auth = PasswordScheme.BASIC,
    cert: Certificate = None,
    key: Key = None,
    token_file: TokenFile = None,
    one_time_password_file: Annotated[
        Path | None,
        typer.Option(help="File with a one-time password in its first line (RFC 7894), beside other credentials or instead of them."),
    ] = None,
    subject: Subject = "",
    dns: Dns = None,
    ip: Ip = None,
    uri: Uri = None,
    usage: Usages = None,
    key_algorithm: Annotated[
        KeyAlgorithm | None, typer.Option(help="Algorithm of the new key. The issuer's wish when left out, else ECDSA-P256.")
    ] = None,
    channel_binding: Binding = ChannelBinding.ON,
    timeout: Timeout = 30,
) -> None:
    """Make a key, and get a first certificate for it. What the options leave unsaid is taken from the issuer's CSR attributes."""
    with _one_sentence_errors():
        one_time_password = one_time_password_from(one_time_password_file)
        credentials = None
        if one_time_password is None or _any(user, password_file, cert, key, token_file):
            credentials = credentials_from(user=user, password_file=password_file, cert=cert, key=key, token_file=token_file, scheme=auth)
        wanted = Wanted(subject=_subject(subject), sans=_sans(dns or [], ip or [], uri or []), usages=frozenset(usage or ()))
        client = _client(url, anchors, label, credentials, timeout)
        if (out_dir / "tls.crt").exists():
            raise ConfigurationError("there is a certificate already: use est renew, or another folder", where=str(out_dir / "tls.crt"))

        async def run(client: EstClient) -> Enrolment:
            wishes = await enrolment.ask(client)
            # The key is on disk before it is asked for: after a lost answer, or a wait for approval, the same command asks for the same
            # key and the server finds the same certificate.
            advised = wishes.key.best() if wishes.key is not None else None
            private_key = keyfile.load_or_make(out_dir / "tls.key", key_algorithm, advised=advised or KeyAlgorithm.ECDSA_P256)
            bind = channel_binding is ChannelBinding.ON
            return await enrolment.enroll(client, private_key, wanted, bind=bind, wishes=wishes, one_time_password=one_time_password)

        done = _run(client, run)
        _write_enrolled(out_dir, done)


@app.command(epilog=EPILOG)
def serverkeygen(
    url: Url,
    anchors: Anchors,
    out_dir: Annotated[Path, typer.Option(help="Folder for tls.key (mode 0600), tls.crt (leaf first) and ca.crt.")],
    label: Label = None,
    user: User = None,
    password_file: PasswordFile = None,
    auth: Auth = PasswordScheme.BASIC,
    cert: Certificate = None,
    key: Key = None,
    token_file: TokenFile = None,
    subject: Subject = "",
    dns: Dns = None,
    ip: Ip = None,
    uri: Uri = None,
    usage: Usages = None,
    kek_id: Annotated[
        str | None, typer.Option(help="Have the key encrypted with the symmetric key that the server has by this name.")
    ] = None,
    kek_file: Annotated[Path | None, typer.Option(help="File with that key: 32, 48 or 64 hexadecimal digits.")] = None,
    decrypt_key: Annotated[
        Path | None, typer.Option(help="Have the key encrypted for this private key, RSA or EC, whose public key the server has. PEM.")
    ] = None,
    decrypt_cert: Annotated[Path | None, typer.Option(help="Its certificate, where the server has that. PEM.")] = None,
    channel_binding: Binding = ChannelBinding.ON,
    timeout: Timeout = 30,
) -> None:
    """Have the server make a key, and get it with a first certificate for it."""
    with _one_sentence_errors():
        credentials = credentials_from(user=user, password_file=password_file, cert=cert, key=key, token_file=token_file, scheme=auth)
        wanted = Wanted(subject=_subject(subject), sans=_sans(dns or [], ip or [], uri or []), usages=frozenset(usage or ()))
        decryption_key = decryption_key_from(kek_id=kek_id, kek_file=kek_file, decrypt_key=decrypt_key, decrypt_cert=decrypt_cert)
        for there in (out_dir / "tls.key", out_dir / "tls.crt"):
            if there.exists():
                raise ConfigurationError("it is there already: use another folder", where=str(there))
        client = _client(url, anchors, label, credentials, timeout)
        bind = channel_binding is ChannelBinding.ON
        made, done = _run(client, lambda client: enrolment.generate(client, wanted, decryption_key=decryption_key, bind=bind))
        files.write(out_dir / "tls.key", keyfile.to_pem(made), private=True)
        _write_enrolled(out_dir, done)


def _write_enrolled(out_dir: Path, done: Enrolment) -> None:
    for wish in done.unmet:
        sys.stderr.write(f"est: not in the certificate request, though the issuer may want it: {wish}\n")
    _tell_changes(done)
    files.write(out_dir / "ca.crt", done.ca_pem)
    files.write(out_dir / "tls.crt", done.chain_pem)
    _show("Enrolled", done, (out_dir / "tls.key", out_dir / "tls.crt", out_dir / "ca.crt"))


def _tell_changes(done: Enrolment) -> None:
    for change in done.changed:
        sys.stderr.write(f"est: the certificate is not what was asked for: {change}\n")


@app.command(epilog=EPILOG)
def renew(
    url: Url,
    anchors: Anchors,
    cert: Annotated[Path, typer.Option(help="PEM file of the certificate to renew, its intermediates after it; replaced.")],
    key: Annotated[Path, typer.Option(help="PEM file of its private key.")],
    label: Label = None,
    user: User = None,
    password_file: PasswordFile = None,
    auth: Auth = PasswordScheme.BASIC,
    new_key: Annotated[KeyAlgorithm | None, typer.Option(help="Rekey: make a new key of this algorithm; --key is replaced.")] = None,
    out_dir: Annotated[Path | None, typer.Option(help="Write tls.key, tls.crt and ca.crt here, and leave --cert and --key alone.")] = None,
    channel_binding: Binding = ChannelBinding.ON,
    timeout: Timeout = 30,
) -> None:
    """Renew a certificate, authenticated with the certificate itself, and with a password where the issuer asks for both."""
    with _one_sentence_errors():
        old = keyfile.parse_certificate(files.read(cert, what="certificate"), where=cert)
        if out_dir is None and key.exists() and key.samefile(cert):
            raise ConfigurationError("certificate and key in one file would be written one over the other: use --out-dir", where=str(cert))
        to_key, to_cert = (key, cert) if out_dir is None else (out_dir / "tls.key", out_dir / "tls.crt")
        old_key = keyfile.current(key, old) if to_key == key else keyfile.parse(files.read(key, what="private key"), where=key)
        credentials = credentials_from(user=user, password_file=password_file, cert=cert, key=key, token_file=None, scheme=auth)
        client = _client(url, anchors, label, credentials, timeout)
        # As at enroll, the key is on disk before it is asked for.
        next_key = old_key if new_key is None else keyfile.successor(to_key, new_key, old)
        done = _run(client, lambda client: enrolment.renew(client, old, next_key, bind=channel_binding is ChannelBinding.ON))
        _tell_changes(done)
        written = [to_key, to_cert]
        if out_dir is not None:
            files.write(out_dir / "ca.crt", done.ca_pem)
            written.append(out_dir / "ca.crt")
            if new_key is None:
                files.write(to_key, keyfile.to_pem(next_key), private=True)
        files.write(to_cert, done.chain_pem)
        if new_key is not None:
            keyfile.put_in_place(to_key, next_key)
        _show("Renewed", done, written)


@contextmanager
def _one_sentence_errors() -> Iterator[None]:
    try:
        yield
    except EstError as error:
        later = f" (again in {error.retry_after.total_seconds():.0f} s)" if isinstance(error, Pending) else ""
        sys.stderr.write(f"est: {error.message}{later}\n")
        code = next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1)
        raise typer.Exit(code) from error


def _client(url: str, anchors: Path, label: str | None, credentials: Credentials | None, timeout: float) -> Callable[[], EstClient]:
    anchors_pem = files.read(anchors, what="trust anchors")
    return lambda: EstClient(url=url, label=label, anchors_pem=anchors_pem, credentials=credentials, timeout=timedelta(seconds=timeout))


def _run(client: Callable[[], EstClient], operation: Callable[[EstClient], Awaitable[T]]) -> T:
    async def run() -> T:
        async with client() as connected:
            return await operation(connected)

    return asyncio.run(run())


def _any(*options: object) -> bool:
    return any(option is not None for option in options)


def _subject(text: str) -> x509.Name:
    try:
        return x509.Name.from_rfc4514_string(text) if text else x509.Name([])
    except ValueError as error:
        raise ConfigurationError("write it like CN=device-7,O=Factory (RFC 4514)", field="--subject") from error


def _sans(dns: list[str], ips: list[str], uris: list[str]) -> tuple[x509.GeneralName, ...]:
    try:
        return (
            *(x509.DNSName(name) for name in dns),
            *(x509.IPAddress(ip_address(address)) for address in ips),
            *(x509.UniformResourceIdentifier(uri) for uri in uris),
        )
    except ValueError as error:
        raise ConfigurationError(f"a name cannot stand in a certificate: {error}", field="--dns, --ip, --uri") from error


def _show(verb: str, done: Enrolment, written: Iterable[Path]) -> None:
    console.print(display.table(verb, [display.Column(heading="certificate", certificate=done.certificate)]))
    console.print("\n".join(str(path) for path in written), highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    app()
