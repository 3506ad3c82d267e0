"""CSR attributes for people: whatever a server sends is shown, and nothing of it breaks the table."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estclient.wishes_table import rows, table
from estcore import csr_wishes, csrattrs, transfer
from estcore.csr_template import ExtensionTemplate, NameComponent
from estcore.csr_wishes import Wishes
from tests.core import vectors


@pytest.mark.spec("EST-ATTR-04")
@pytest.mark.parametrize(
    ("vector", "shown"),
    [
        (
            "rfc7030-a2-csrattrs-response",
            [
                ("key", "EC brainpoolP384r1"),
                ("signature", "SHA-384"),
                ("attribute: macAddress", "yours to fill in"),
                ("attribute: challengePassword", "the channel binding"),
                ("attribute: 2.999.1", (b"\x13\x19Parse SET as 2.999.1 data").hex()),
                ("attribute: 2.999.2", "0603883703\n0603883704\n" + (b"\x13\x19Parse SET as 2.999.2 data").hex()),
            ],
        ),
        (
            "rfc7030-452-csrattrs",
            [
                ("key", "EC P-384"),
                ("signature", "ECDSA with SHA-384"),
                ("attribute: challengePassword", "the channel binding"),
                ("passed over", "the extensionRequest has the tag 0x06 where 0x30 belongs"),
            ],
        ),
        (
            "rfc9908-5.4-csrattrs",
            [("key", "RSA 4096 bits"), ("signature", "RSA with SHA-256"), ("attribute: challengePassword", "the channel binding")],
        ),
    ],
)
def test_published_answers_are_shown(vector: str, shown: list[tuple[str, str]]) -> None:
    assert list(rows(csr_wishes.read(csrattrs.decode(transfer.decode_body(vectors.body(vector)))))) == shown


def test_a_name_of_a_kind_without_a_text_is_shown_as_octets() -> None:
    wishes = csr_wishes.read(csrattrs.decode(transfer.decode_body(vectors.body("rfc9908-5.1-csrattrs"))))
    ((wanted, value),) = rows(wishes)
    assert wanted == "extension: subjectAltName (critical)"
    assert bytes.fromhex(value).endswith(b"+@acp.example.com")


@settings(deadline=None)
@given(
    oid=st.sampled_from(["2.5.29.15", "2.5.29.17", "2.5.29.37", "2.5.29.32"]),
    value=st.binary(max_size=40),
    name=st.binary(min_size=2, max_size=20),
)
def test_any_octets_are_shown(oid: str, value: bytes, name: bytes) -> None:
    wishes = Wishes(subject=((NameComponent(type="2.5.4.3", value=name),),), extensions=(ExtensionTemplate(oid=oid, value=value),))
    assert len(list(rows(wishes))) == 2
    assert table(wishes).row_count == 2
