"""Passwords: what Secrets may hold, and a check that costs the same whoever asks."""

import asyncio
import threading
from dataclasses import dataclass

import bcrypt
import pytest

from estcore.errors import Busy, ConfigurationError, Unauthenticated
from estserver.passwords import PasswordChecker, Passwords, load
from estserver.snapshot import SecretManifest
from tests.server.app_fixtures import secret


def hashed(password: str, *, cost: int = 4, prefix: bytes = b"2b") -> bytes:
    return bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(cost, prefix)).replace(b"$2b$", b"$" + prefix + b"$", 1)


def htpasswd(*lines: bytes) -> SecretManifest:
    return secret("passwords", {"auth": b"\n".join(lines)})


def basic_auth(user: bytes, password: bytes, name: str = "one") -> SecretManifest:
    return secret(name, {"username": user, "password": password}, type_="kubernetes.io/basic-auth")


def test_a_basic_auth_secret_is_one_user_and_a_line_end_at_its_end_does_not_count() -> None:
    passwords = load([basic_auth(b"device\n", b"s3cret\n")])
    passwords.check("device", "s3cret")
    for user, password in (("device", "s3cret\n"), ("device", "S3cret"), ("device", ""), ("", "s3cret"), ("devic", "s3cret")):
        with pytest.raises(Unauthenticated):
            passwords.check(user, password)


@pytest.mark.parametrize("prefix", [b"2a", b"2b", b"2y"])
def test_an_htpasswd_file_of_bcrypt_hashes_with_comments_and_blank_lines(prefix: bytes) -> None:
    password_line = b"device:" + hashed("s3cret", prefix=b"2b").replace(b"$2b$", b"$" + prefix + b"$")
    passwords = load([htpasswd(b"# devices", b"", password_line, b"other:" + hashed("x") + b"\r", b"")])
    passwords.check("device", "s3cret")
    passwords.check("other", "x")
    with pytest.raises(Unauthenticated):
        passwords.check("device", "x")


def test_several_secrets_are_one_set_of_users() -> None:
    passwords = load([basic_auth(b"a", b"1"), basic_auth(b"b", b"2", "two"), htpasswd(b"c:" + hashed("3"))])
    for user, password in (("a", "1"), ("b", "2"), ("c", "3")):
        passwords.check(user, password)
    assert len(passwords) == 3


def test_bcrypt_reads_72_octets_as_htpasswd_does() -> None:
    long = "x" * 100
    load([htpasswd(b"a:" + hashed(long))]).check("a", long)


BROKEN = {
    "MD5 of Apache": (b"a:$apr1$salt$abcdefghijklmnopqrstuv", "auth line 1: the hash of user 'a' is not bcrypt; make it with: htpasswd -B"),
    "SHA-1": (b"# comment\na:{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=", "auth line 2: the hash of user 'a' is not bcrypt"),
    "SHA-crypt": (b"a:$6$salt$hash", "is not bcrypt"),
    "plain text": (b"a:password", "is not bcrypt"),
    "empty hash": (b"a:", "is not bcrypt"),
    "no colon": (b"nonsense", "auth line 1: it is not user:hash"),
    "a cost that takes days": (b"a:" + hashed("x").replace(b"$04$", b"$31$"), "the bcrypt cost of user 'a' is 31; choose 4 to 14"),
    "a salt that bcrypt does not read": (b"a:" + hashed("x")[:28] + b"1" + hashed("x")[29:], "is not bcrypt"),
    "no users": (b"# nobody\n", "it holds no user"),
    "not UTF-8": (b"\xff:" + hashed("x"), "auth: it is not UTF-8"),
    "a user twice": (b"a:" + hashed("x") + b"\na:" + hashed("y"), "auth line 2: the user 'a' is there twice"),
    "a control character": (b"a\x07b:" + hashed("x"), "no control character"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_unusable_line_is_a_configuration_error_that_names_it_and_no_hash(case: str) -> None:
    content, expected = BROKEN[case]
    with pytest.raises(ConfigurationError) as raised:
        load([secret("passwords", {"auth": content})])
    assert expected in raised.value.message
    assert raised.value.reason == "SecretInvalidData"
    assert "$04$" not in raised.value.message


@pytest.mark.parametrize(
    "broken",
    [
        secret("one", {"username": b"a"}, type_="kubernetes.io/basic-auth"),
        secret("one", {"username": b"a:b", "password": b"x"}, type_="kubernetes.io/basic-auth"),
        secret("one", {"username": b"a", "password": b"x\ny"}, type_="kubernetes.io/basic-auth"),
        secret("one", {"other": b"x"}),
    ],
)
def test_a_secret_without_usable_user_and_password_is_a_configuration_error(broken: SecretManifest) -> None:
    with pytest.raises(ConfigurationError, match="Secret devices/one"):
        load([broken])


@pytest.mark.spec("THREAT-14")
def test_an_unknown_user_costs_what_a_known_one_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the clock but by the work: the same hash function runs, at a cost that a known user has."""
    costs: list[bytes] = []
    checkpw = bcrypt.checkpw

    def _counted(password: bytes, entry: bytes) -> bool:
        costs.append(entry[4:6])
        return checkpw(password, entry)

    monkeypatch.setattr(bcrypt, "checkpw", _counted)
    passwords = load([htpasswd(b"a:" + hashed("x", cost=4), b"b:" + hashed("x", cost=5))])
    for user in ("a", "b", *(f"unknown-{number}" for number in range(20))):
        with pytest.raises(Unauthenticated) as raised:
            passwords.check(user, "wrong")
        assert raised.value.message == "the user or the password is wrong"
    assert costs[:2] == [b"04", b"05"]
    assert len(costs) == 22
    assert set(costs[2:]) == {b"04", b"05"}
    costs.clear()
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            passwords.check("unknown-1", "wrong")
    assert len(set(costs)) == 1, "the same name costs the same each time"


def test_an_unknown_user_is_refused_also_with_the_password_of_its_stand_in() -> None:
    with pytest.raises(Unauthenticated):
        load([basic_auth(b"a", b"password")]).check("unknown", "password")


async def test_slow_checks_run_off_the_loop_and_the_line_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = load([htpasswd(b"a:" + hashed("x"))])
    checker = PasswordChecker(threads=1, waiting=2)
    go, threads = threading.Event(), set[str]()

    def _slow(self: Passwords, user: str, password: str) -> None:
        threads.add(threading.current_thread().name)
        assert go.wait(10)

    monkeypatch.setattr(Passwords, "check", _slow)
    running = [asyncio.create_task(checker.check(passwords, "a", f"{number}")) for number in range(3)]
    for _ in range(3):
        await asyncio.sleep(0)
    with pytest.raises(Busy):
        await checker.check(passwords, "a", "x")
    go.set()
    await asyncio.gather(*running)
    assert all(thread.startswith("passwords") for thread in threads)
    await checker.check(passwords, "a", "x")
    checker.close()


@dataclass
class Timer:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The slow hashes that were computed."""
    computed: list[bytes] = []
    checkpw = bcrypt.checkpw

    def _counted(password: bytes, entry: bytes) -> bool:
        computed.append(password)
        return checkpw(password, entry)

    monkeypatch.setattr(bcrypt, "checkpw", _counted)
    return computed


@pytest.mark.spec("THREAT-14")
async def test_a_burst_with_one_right_password_costs_one_slow_hash(hashes: list[bytes]) -> None:
    passwords, timer = load([htpasswd(b"a:" + hashed("x"))]), Timer()
    checker = PasswordChecker(timer=timer)
    await asyncio.gather(*(checker.check(passwords, "a", "x") for _ in range(20)))
    timer.now = 4.9
    await checker.check(passwords, "a", "x")
    assert hashes == [b"x"]
    timer.now = 5.1
    await checker.check(passwords, "a", "x")
    assert hashes == [b"x", b"x"]
    checker.close()


@pytest.mark.spec("THREAT-14")
async def test_what_is_remembered_opens_for_nobody_else(hashes: list[bytes]) -> None:
    """Another password, another user, parts that read alike when they are put together, and the same user of another issuer."""
    lines = htpasswd(b"a:" + hashed("bx"), b"ab:" + hashed("y"))
    passwords, other = load([lines]), load([htpasswd(b"a:" + hashed("other"))])
    checker = PasswordChecker()
    await checker.check(passwords, "a", "bx")
    for where, user, password in ((passwords, "a", "bX"), (passwords, "ab", "x"), (passwords, "", "abx"), (other, "a", "bx")):
        for _ in range(2):
            with pytest.raises(Unauthenticated):
                await checker.check(where, user, password)
    assert len(hashes) == 1 + 8, "wrong ones are never remembered"
    checker.close()


async def test_a_secret_that_changes_empties_what_is_remembered(hashes: list[bytes]) -> None:
    checker = PasswordChecker()
    await checker.check(load([htpasswd(b"a:" + hashed("x"))]), "a", "x")
    with pytest.raises(Unauthenticated):
        await checker.check(load([htpasswd(b"a:" + hashed("new"))]), "a", "x")
    checker.close()


async def test_a_request_that_goes_away_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords, go = load([htpasswd(b"a:" + hashed("x"))]), threading.Event()
    check = Passwords.check

    def _slow(self: Passwords, user: str, password: str) -> None:
        assert go.wait(10)
        check(self, user, password)

    monkeypatch.setattr(Passwords, "check", _slow)
    checker = PasswordChecker()
    first, second = (asyncio.create_task(checker.check(passwords, "a", "x")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    go.set()
    await second
    checker.close()
