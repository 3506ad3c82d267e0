"""RFC 5272 section 6.15: which trust anchors a client takes from a message, and which it does not."""

from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256

import pytest
from cryptography import x509

from estcore import trust_publication
from estcore.cmc_controls import PublishTrustAnchors
from tests import pki
from tests.core.cmc_messages import SHA_256

OLD = pki.ca("Factory CA", private_key=pki.key(owner="old"))
NEW = pki.ca("Factory CA", private_key=pki.key(owner="new"))
LINK = pki.ca("Factory CA", issuer=OLD, private_key=pki.key(owner="new"))
OTHER = pki.ca("Another CA")
NOW = pki.EPOCH
BAG = (OLD.certificate, NEW.certificate, LINK.certificate)


def hash_of(ca: pki.Ca) -> bytes:
    return sha256(ca.der).digest()


@pytest.mark.spec("EST-CMC-32")
def test_the_self_signed_ones_of_a_ca_are_published_by_their_sha_256() -> None:
    control = trust_publication.publish(BAG, now=NOW)
    assert control.anchor_hashes == (hash_of(OLD), hash_of(NEW))
    assert control.hash_algorithm_der == SHA_256
    assert trust_publication.publish(BAG, now=NOW + timedelta(seconds=1)).sequence_number > control.sequence_number


def read(
    control: PublishTrustAnchors | None,
    *,
    bag: Sequence[x509.Certificate] = BAG,
    signer: x509.Certificate | None = OLD.certificate,
    signed: timedelta | None = timedelta(0),
    last: int = 0,
) -> trust_publication.Published | None:
    return trust_publication.published(
        [control] if control is not None else [],
        bag,
        signer=signer,
        signing_time=None if signed is None else NOW + signed,
        trusted=[OLD.certificate],
        last_sequence_number=last,
        now=NOW,
    )


PUBLISHED = trust_publication.publish(BAG, now=NOW)


@pytest.mark.spec("EST-CMC-32")
def test_a_trust_anchor_that_the_client_has_introduces_the_next_one() -> None:
    found = read(PUBLISHED)
    assert found is not None
    assert (found.anchors, found.sequence_number) == ((OLD.certificate, NEW.certificate), PUBLISHED.sequence_number)


@pytest.mark.spec("EST-CMC-32")
def test_what_is_not_listed_or_not_there_or_not_self_signed_is_ignored() -> None:
    found = read(PublishTrustAnchors(1, SHA_256, (hash_of(NEW), hash_of(LINK), bytes(32))), bag=(*BAG, OTHER.certificate))
    assert found is not None
    assert found.anchors == (NEW.certificate,)


@pytest.mark.parametrize(
    "others",
    [
        {"control": None},
        {"signer": None},
        {"signer": NEW.certificate},
        {"signer": OTHER.certificate},
        {"signed": None},
        {"signed": timedelta(minutes=16)},
        {"signed": -timedelta(minutes=16)},
        {"last": PUBLISHED.sequence_number},
        {"last": PUBLISHED.sequence_number + 1},
        {"bag": (OTHER.certificate,)},
        {"control": PublishTrustAnchors(1, pki.sequence(pki.oid("1.3.14.3.2.26")), (hash_of(NEW),))},
    ],
    ids=[
        "nothing published",
        "signed by nobody",
        "by the new anchor itself",
        "by another CA",
        "without a time",
        "from the future",
        "old",
        "a replay",
        "an earlier one",
        "without the certificates",
        "by SHA-1",
    ],
)
@pytest.mark.spec("EST-CMC-32")
def test_a_publication_that_nobody_trusted_made_now_for_the_first_time_says_nothing(others: dict[str, object]) -> None:
    assert read(**{"control": PUBLISHED, **others}) is None  # type: ignore[arg-type]  # the table names its own keywords
