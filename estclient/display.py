"""Certificates as a table for people."""

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from rich.table import Table
from rich.text import Text

from estcore.errors import EstError
from estcore.keys import key_algorithm
from estcore.names import describe_general_name, describe_name
from estcore.visible_text import escaped


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One certificate of the table; `authenticated_by` tells how its requester proved who it is, empty where nobody asked."""

    heading: str
    certificate: x509.Certificate
    authenticated_by: str = ""


def table(title: str, columns: Sequence[Column]) -> Table:
    """Certificates side by side, one fact a row. Names are shown as text, never read as markup."""
    shown = Table(title=title, title_justify="left", show_lines=True)
    shown.add_column("")
    for column in columns:
        shown.add_column(Text(column.heading), overflow="fold")
    facts = [_facts(column) for column in columns]
    for name in facts[0] if facts else ():
        if any(fact[name] for fact in facts):
            shown.add_row(name, *(Text(fact[name]) for fact in facts))
    return shown


def _facts(column: Column) -> dict[str, str]:
    certificate = column.certificate
    return {
        "subject": escaped(describe_name(certificate.subject)),
        "SANs": "\n".join(map(escaped, _sans(certificate))),
        "issuer": escaped(describe_name(certificate.issuer)),
        "serial": f"{certificate.serial_number:x}",
        "valid from": f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC",
        "valid until": f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC",
        "key": _key(certificate),
        "requester authenticated by": column.authenticated_by,
    }


def _sans(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [describe_general_name(name) for name in names]


def _key(certificate: x509.Certificate) -> str:
    try:
        return str(key_algorithm(certificate.public_key()))
    except (EstError, ValueError):
        return "of an unlisted kind"
