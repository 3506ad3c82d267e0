"""The server's own certificate: what it is, when it is renewed, and that clients always hold a root for it."""

import ipaddress
import stat
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from estcore.errors import ConfigurationError
from estserver import serving_certificate
from estserver.serving_certificate import ServingKeys, check, from_data, renewed, subject_alternative_names, to_data
from estserver.serving_keeper import ServingKeeper
from estserver.serving_store import Data, DirectoryStore, FilesStore, Stored
from estserver.tls import ServerTls
from tests.collect import collect
from tests.server.manifest_builders import NOW, next_serial

NAMES = ("est.example", "localhost", "127.0.0.1", "::1")
DAY = timedelta(days=1)


def renew(keys: ServingKeys | None, now: datetime, names: Sequence[str] = NAMES) -> ServingKeys:
    return renewed(keys, names, now=now, serial=next_serial)


def leaf(keys: ServingKeys) -> x509.Certificate:
    return x509.load_pem_x509_certificate(keys.chain_pem)


def roots(keys: ServingKeys) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(keys.bundle_pem)


def verify(keys: ServingKeys, bundle_pem: bytes, now: datetime, name: str = "est.example") -> None:
    """What a client does that holds `bundle_pem`."""
    store = verification.Store(x509.load_pem_x509_certificates(bundle_pem))
    verification.PolicyBuilder().store(store).time(now).build_server_verifier(x509.DNSName(name)).verify(leaf(keys), [])


def test_it_is_a_server_certificate_for_the_names_under_a_root_of_its_own() -> None:
    keys = renew(None, NOW)
    verify(keys, keys.bundle_pem, NOW)
    certificate = leaf(keys)
    collect(certificate.public_bytes(Encoding.DER), roots(keys)[0].public_bytes(Encoding.DER))
    collect(roots(keys)[0].public_bytes(Encoding.DER))
    sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert sans.get_values_for_type(x509.DNSName) == ["est.example", "localhost"]
    assert sans.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.SERVER_AUTH]
    # RFC 5280 section 4.1.2.5: the period includes both ends
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc + timedelta(seconds=1) == 90 * DAY
    assert ServerTls(keys.chain_pem, keys.key_pem).certificate == certificate


def test_nothing_is_due_for_sixty_days_and_then_a_new_key_under_the_same_root() -> None:
    keys = renew(None, NOW)
    assert renew(keys, NOW + 59 * DAY) is keys
    later = renew(keys, NOW + 60 * DAY)
    assert later.key_pem != keys.key_pem
    assert later.bundle_pem == keys.bundle_pem
    verify(later, keys.bundle_pem, NOW + 60 * DAY)


def test_other_names_are_due_at_once() -> None:
    keys = renew(None, NOW)
    assert renew(keys, NOW, tuple(reversed(NAMES))) is keys
    verify(renew(keys, NOW, (*NAMES, "new.example")), keys.bundle_pem, NOW, "new.example")


def test_a_client_that_refreshes_its_bundle_once_a_month_is_never_cut_off_in_thirty_years() -> None:
    now, keys = NOW, renew(None, NOW)
    held = keys.bundle_pem
    seen = set()
    for day in range(0, 30 * 365, 10):
        now = NOW + day * DAY
        keys = renew(keys, now)
        for bundle_pem in {held, keys.bundle_pem}:
            verify(keys, bundle_pem, now)
        assert all(root.not_valid_after_utc > now for root in roots(keys))
        seen.add(keys.root_pem)
        if day % 30 == 0:
            held = keys.bundle_pem
    assert len(seen) >= 3, "the root was renewed"


def test_a_root_signs_only_after_it_was_published_for_a_month() -> None:
    keys = renew(None, NOW)
    prepared = renew(keys, NOW + 3650 * DAY - 365 * DAY)
    assert len(roots(prepared)) == 2
    assert prepared.root_pem == keys.root_pem
    begin = NOW + 3650 * DAY - 365 * DAY
    assert renew(prepared, begin + 29 * DAY).root_pem == keys.root_pem
    assert renew(prepared, begin + 30 * DAY).root_pem == prepared.next_root_pem


@pytest.mark.parametrize("broken", ["chain_pem", "key_pem", "root_pem", "root_key_pem", "bundle_pem", "next_root_pem"])
def test_broken_parts_are_made_anew_and_a_usable_root_is_kept(broken: str) -> None:
    keys = renew(None, NOW)
    mended = renew(replace(keys, **{broken: b"-----BEGIN CERTIFICATE-----\nMIIB"}), NOW)
    if broken in {"chain_pem", "key_pem", "next_root_pem"}:
        verify(mended, keys.bundle_pem, NOW)
    elif broken.startswith("root"):
        verify(mended, mended.bundle_pem, NOW)
        assert set(roots(keys)) < set(roots(mended)), "clients of other replicas still trust the root before"


def test_a_leaf_of_another_root_is_replaced() -> None:
    keys, other = renew(None, NOW), renew(None, NOW)
    mixed = replace(keys, chain_pem=other.chain_pem, key_pem=other.key_pem)
    verify(renew(mixed, NOW), keys.bundle_pem, NOW)


def test_members_of_the_secret_are_read_back() -> None:
    keys = renew(None, NOW)
    assert from_data(to_data(keys)) == keys
    assert set(to_data(keys)) == {"tls.crt", "tls.key", "ca.crt", "root.crt", "root.key"}
    assert "PRIVATE" not in repr(keys)


@pytest.mark.parametrize("name", ["", "a..b", "-a", "a b", "*.example", "a_b", "x" * 64, "é.example", "10.0.0", "https://a"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    if name == "10.0.0":  # digits and dots are a DNS name to RFC 1123, though no address
        assert subject_alternative_names((name,))
        return
    with pytest.raises(ConfigurationError, match="neither a DNS name nor an IP address"):
        subject_alternative_names((name,))


def test_a_given_certificate_must_be_a_pair_and_valid() -> None:
    keys, other = renew(None, NOW), renew(None, NOW)
    with pytest.raises(ConfigurationError, match=r"w: tls\.key is not the key"):
        check(replace(keys, key_pem=other.key_pem), now=NOW, where="w")
    with pytest.raises(ConfigurationError, match="is valid from"):
        check(keys, now=NOW + 91 * DAY, where="w")


class MemoryStore:
    """A store that another replica also writes: `intrude` is what it writes just before our next save."""

    where = "memory"

    def __init__(self) -> None:
        self.stored = Stored(None, "")
        self.published: list[bytes] = []
        self.intrude: ServingKeys | None = None
        self.fail: Exception | None = None

    async def load(self) -> Stored:
        if self.fail is not None:
            raise self.fail
        return self.stored

    async def save(self, data: Data, version: str) -> bool:
        if self.intrude is not None:
            self.stored, self.intrude = Stored(to_data(self.intrude), version + "x"), None
        if version != self.stored.version:
            return False
        self.stored = Stored(data, version + "+")
        return True

    async def publish(self, bundle_pem: bytes) -> str:
        self.published.append(bundle_pem)
        return "memory"


class Turns:
    """The clock and the sleep of a keeper: each turn moves a day on; after the last one it ends."""

    def __init__(self, days: int) -> None:
        self.now = NOW
        self.left = days

    async def sleep(self, seconds: float) -> None:
        assert 30 < seconds <= 90
        if not self.left:
            raise _EndError
        self.left -= 1
        self.now += DAY


class _EndError(BaseException):
    pass


def keeper(store: MemoryStore, turns: Turns) -> ServingKeeper:
    return ServingKeeper(store=store, names=NAMES, clock=lambda: turns.now, serial=next_serial, sleep=turns.sleep)


async def keep(kept: ServingKeeper) -> list[ServingKeys]:
    used: list[ServingKeys] = []
    kept.keys = await kept.refresh()
    with pytest.raises(_EndError):
        await kept.keep(used.append)
    return used


async def test_the_keeper_renews_in_time_and_publishes_before_use() -> None:
    store = MemoryStore()
    used = await keep(keeper(store, Turns(130)))
    assert len(used) == 2
    assert from_data(store.stored.data or {}) == used[-1]
    assert store.published[0] == used[-1].bundle_pem


async def test_of_two_replicas_one_makes_the_certificate_and_both_use_it() -> None:
    store = MemoryStore()
    theirs = renew(None, NOW)
    store.intrude = theirs
    assert await keeper(store, Turns(0)).refresh() == theirs


async def test_a_store_that_is_away_leaves_the_certificate_in_use() -> None:
    store = MemoryStore()
    kept = keeper(store, Turns(3))
    kept.keys = await kept.refresh()
    store.fail = RuntimeError("away")
    with pytest.raises(_EndError):
        await kept.keep(lambda _: pytest.fail("nothing new may be used"))


async def test_the_directory_store_keeps_keys_private_and_publishes_the_root(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "serving")
    kept = ServingKeeper(store=store, names=NAMES, clock=lambda: NOW, serial=next_serial)
    keys = await kept.refresh()
    assert kept.published == str(tmp_path / "serving" / "ca.crt")
    assert (tmp_path / "serving" / "ca.crt").read_bytes() == keys.bundle_pem
    assert stat.S_IMODE((tmp_path / "serving" / "serving.yaml").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "serving").stat().st_mode) == 0o700
    assert await ServingKeeper(store=store, names=NAMES, clock=lambda: NOW, serial=next_serial).refresh() == keys


async def test_a_file_that_is_no_secret_is_named_and_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "serving.yaml"
    file.write_text("mine")
    with pytest.raises(ConfigurationError, match=r"serving\.yaml"):
        await ServingKeeper(store=DirectoryStore(tmp_path), names=NAMES, clock=lambda: NOW, serial=next_serial).refresh()
    assert file.read_text() == "mine"


async def test_given_files_are_used_as_they_are_and_reread(tmp_path: Path) -> None:
    first, second = renew(None, NOW), renew(None, NOW)
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    kept = ServingKeeper(store=FilesStore(certificate, key), names=(), clock=lambda: NOW, serial=next_serial)
    with pytest.raises(ConfigurationError, match=r"tls\.crt: cannot be read"):
        await kept.refresh()
    for keys in (first, second):
        certificate.write_bytes(keys.chain_pem)
        key.write_bytes(keys.key_pem)
        assert (await kept.refresh()).chain_pem == keys.chain_pem
    key.write_bytes(first.key_pem)
    with pytest.raises(ConfigurationError, match="is not the key"):
        await kept.refresh()


WEAK_KEYS = (
    rsa.generate_private_key(65537, 1024),  # noqa: S505 - TLS refuses it, as we must
    ec.generate_private_key(ec.SECP192R1()),
)


@pytest.mark.parametrize("key", WEAK_KEYS, ids=["RSA-1024", "P-192"])
async def test_a_given_certificate_that_tls_refuses_is_refused_before_anybody_is_handed_it(
    tmp_path: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
) -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server")])
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(next_serial())
    signed = built.not_valid_before(NOW).not_valid_after(NOW + DAY).sign(key, hashes.SHA256())
    (tmp_path / "tls.crt").write_bytes(signed.public_bytes(Encoding.PEM))
    (tmp_path / "tls.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    store = FilesStore(tmp_path / "tls.crt", tmp_path / "tls.key")
    with pytest.raises(ConfigurationError, match=r"tls\.crt.*: .*a PEM pair that TLS can use"):
        await ServingKeeper(store=store, names=(), clock=lambda: NOW, serial=next_serial).refresh()


async def test_a_certificate_that_could_not_be_handed_on_is_handed_on_again() -> None:
    used: list[ServingKeys] = []

    def use(keys: ServingKeys) -> None:
        used.append(keys)
        if len(used) == 1:
            raise OSError("a worker went away")

    kept = keeper(MemoryStore(), Turns(62))
    kept.keys = await kept.refresh()
    with pytest.raises(_EndError):
        await kept.keep(use)
    assert len(used) == 2
    assert used[0] == used[1] == kept.keys


def test_the_constants_keep_design_decision_12() -> None:
    assert serving_certificate.SERVER_LIFE <= 90 * DAY
    assert serving_certificate.SERVER_RENEWAL == serving_certificate.SERVER_LIFE * 2 / 3
