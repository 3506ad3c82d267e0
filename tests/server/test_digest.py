"""HTTP Digest at the server: challenges, right and wrong answers, replays, other workers and replicas."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

import pytest

from estcore import digest_authentication
from estcore.errors import ConfigurationError
from estserver.digests import load
from estserver.issuers import Registry
from tests.server.app_fixtures import (
    SECRETS,
    SPEC,
    AppConfiguration,
    Server,
    basic,
    leaf,
    make_csr,
    manifest,
    registry_of,
    running,
    secret,
    tls,
    with_est,
)
from tests.server.digest_client import digests, line, offered, respond

USER, PASSWORD = "device-1", "correct horse"
DIGEST = digests(line(USER, PASSWORD), line(USER, PASSWORD, algorithm="MD5"), line("", "shared"), line("ca", "x", realm="ca:12"))
RULES = [
    {"from": {"authentication": "digest"}, "subject": {"commonName": "*"}, "dnsNames": ["*.devices.example"]},
    *SPEC["policy"]["rules"],
]


def spec(*ways: Mapping[str, Any], md5: bool = False, **est: Any) -> dict[str, Any]:
    """An issuer with these ways, Digest alone where none is given."""
    ways = ways or ({"digest": {"secretName": "digests", "md5": md5}},)
    return {**with_est(authentication=list(ways), **est), "policy": {"rules": RULES}}


def registry(*ways: Mapping[str, Any], md5: bool = False, **est: Any) -> Registry:
    return registry_of(manifest(spec=spec(*ways, md5=md5, **est)), secrets=(*SECRETS, DIGEST))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path, registry()) as running_server:
        yield running_server


@pytest.fixture
async def md5_server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path, registry(md5=True)) as running_server:
        yield running_server


async def challenge(server: Server, algorithm: str = "SHA-256", *, label: str | None = "factory") -> dict[str, str]:
    answer = await server.enroll(make_csr(), label=label)
    assert answer.status == 401
    return offered(answer.all("www-authenticate"), algorithm)


# challenges


@pytest.mark.spec("EST-AUTH-02", "EST-AUTH-03", "EST-AUTH-09", "EST-AUTH-11", "THREAT-15")
async def test_sha_256_is_the_first_digest_challenge_and_md5_is_offered_by_its_switch_only(server: Server, md5_server: Server) -> None:
    alone = (await server.enroll(make_csr())).all("www-authenticate")
    assert [value.partition(" nonce")[0] for value in alone] == ['Digest realm="factory", qop="auth", algorithm=SHA-256,']
    both = (await md5_server.enroll(make_csr())).all("www-authenticate")
    assert [value.partition(" nonce")[0] for value in both] == [
        'Digest realm="factory", qop="auth", algorithm=SHA-256,',
        'Digest realm="factory", qop="auth", algorithm=MD5,',
    ]
    assert all("opaque=" in value and "stale" not in value for value in (*alone, *both))
    assert (await server.enroll(make_csr())).all("set-cookie") == []


@pytest.mark.spec("EST-AUTH-11")
async def test_libest_which_reads_one_header_and_knows_md5_only_gets_md5_first(md5_server: Server, server: Server) -> None:
    headers = [("User-Agent", "libest 3.2.0")]
    values = (await md5_server.enroll(make_csr(), headers=headers)).all("www-authenticate")
    assert ["MD5" in value for value in values] == [True, False]
    only = (await server.enroll(make_csr(), headers=headers)).all("www-authenticate")
    assert ["SHA-256" in value for value in only] == [True], "without the switch nobody gets MD5"


@pytest.mark.spec("EST-AUTH-09")
async def test_bouncy_castle_which_sends_no_user_agent_gets_a_challenge_that_it_can_read(md5_server: Server) -> None:
    """tests/interop/bouncycastle has the client itself."""
    answer = await md5_server.enroll(make_csr(), user_agent="")
    assert answer.status == 401
    for challenge in answer.all("www-authenticate"):
        parameters = dict(each.split("=", 1) for each in challenge.removeprefix("Digest ").split(", "))
        assert set(parameters) == {"realm", "qop", "algorithm", "nonce", "opaque"}
        assert all(value.startswith('"') and value.endswith('"') for value in parameters.values())


@pytest.mark.spec("EST-AUTH-03", "EST-AUTH-11")
async def test_challenges_are_one_a_header_in_the_issuers_order_and_bearer_is_last(tmp_path: Path) -> None:
    ways: tuple[dict[str, dict[str, Any]], ...] = (
        {"serviceAccountToken": {}},
        {"basic": {"secretName": "passwords"}},
        {"digest": {"secretName": "digests", "md5": True}},
    )
    for number, order in enumerate((ways, ways[::-1])):
        (tmp_path / str(number)).mkdir()
        async with running(tmp_path / str(number), registry(*order)) as server:
            values = (await server.enroll(make_csr())).all("www-authenticate")
            kinds = [value.split()[0] for value in values]
            assert kinds == (["Basic", "Digest", "Digest", "Bearer"] if number == 0 else ["Digest", "Digest", "Basic", "Bearer"])


@pytest.mark.spec("EST-AUTH-08", "EST-AUTH-09")
async def test_the_realm_is_the_label_that_was_asked(tmp_path: Path) -> None:
    async with running(tmp_path, registry(labels=["ca:12", "second"])) as server:
        for label, realm in (("factory", "factory"), ("second", "second"), ("ca:12", "ca:12"), (None, "factory")):
            assert (await challenge(server, label=label))["realm"] == realm
        found = await challenge(server, label="ca:12")
        answer = await server.enroll(
            make_csr("x"), label="ca:12", authorization=respond(found, "ca", "x", uri="/.well-known/est/ca:12/simpleenroll")
        )
        assert answer.status == 200
        assert server.audit_events[-1]["requester"] == "digest:ca"
        elsewhere = await server.enroll(make_csr(), authorization=respond(found, "ca", "x"))
        assert elsewhere.status == 401
        assert elsewhere.text.endswith("the realm is not that of the challenge: it is the label of this path")


# right answers


@pytest.mark.spec("EST-AUTH-03", "EST-AUTH-10", "EST-AUTH-11")
@pytest.mark.parametrize("algorithm", ["SHA-256", "MD5"])
async def test_a_right_answer_enrols(md5_server: Server, algorithm: str) -> None:
    found = await challenge(md5_server, algorithm)
    answer = await md5_server.enroll(make_csr(USER), authorization=respond(found, USER, PASSWORD))
    assert answer.certificate.subject.rfc4514_string() == "CN=device-1"
    assert md5_server.audit_events[-1]["requester"] == "digest:device-1"


@pytest.mark.spec("EST-AUTH-09", "EST-AUTH-11")
async def test_no_algorithm_is_md5_and_the_opaque_may_be_left_out_as_libest_does(md5_server: Server) -> None:
    found = await challenge(md5_server, "MD5")
    answer = await md5_server.enroll(
        make_csr(USER), authorization=respond(found, USER, PASSWORD, algorithm=None, opaque=None, qop='"auth"')
    )
    assert answer.status == 200


@pytest.mark.spec("EST-AUTH-07")
async def test_the_user_may_be_empty_where_it_is_configured_so(server: Server) -> None:
    assert (await server.enroll(make_csr("x"), authorization=respond(await challenge(server), "", "shared"))).status == 200


@pytest.mark.spec("EST-AUTH-12")
async def test_one_nonce_serves_as_many_requests_as_have_another_nc_in_any_order(server: Server) -> None:
    found = await challenge(server)
    for nc in ("00000002", "00000001", "ffffffff"):
        assert (await server.enroll(make_csr(USER), authorization=respond(found, USER, PASSWORD, nc=nc))).status == 200


# wrong answers


@pytest.mark.spec("EST-AUTH-10", "THREAT-14", "THREAT-15")
@pytest.mark.parametrize(
    ("user", "password", "other"),
    [
        (USER, "wrong", {}),
        ("nobody", PASSWORD, {}),
        (USER, PASSWORD, {"method": "GET"}),
        (USER, PASSWORD, {"username": '"nobody"'}),
        (USER, PASSWORD, {"nc": "00000002", "response": '"' + "0" * 64 + '"'}),
        (USER, PASSWORD + " ", {}),
        ("DEVICE-1", PASSWORD, {}),
    ],
)
async def test_a_wrong_answer_is_401_with_a_new_challenge_that_is_not_stale(
    server: Server, user: str, password: str, other: dict[str, str]
) -> None:
    found = await challenge(server)
    answer = await server.enroll(make_csr(), authorization=respond(found, user, password, **other))
    assert answer.status == 401
    assert answer.text.endswith("the user or the password is wrong")
    again = offered(answer.all("www-authenticate"))
    assert "stale" not in again
    assert again["nonce"] != found["nonce"]
    assert server.audit_lines == []


@pytest.mark.spec("THREAT-15")
@pytest.mark.parametrize("parameter", ["nonce", "cnonce", "nc", "uri"])
async def test_what_is_hashed_cannot_be_changed_afterwards(server: Server, parameter: str) -> None:
    found, other = await challenge(server), await challenge(server)
    old, new, status = {
        "nonce": (found["nonce"], other["nonce"], 401),
        "cnonce": ('cnonce="MDAwMQ"', 'cnonce="MDAwMg"', 401),
        "nc": ("nc=00000001", "nc=00000002", 401),
        "uri": ("factory/simpleenroll", "factory/cacerts", 400),
    }[parameter]
    authorization = respond(found, USER, PASSWORD)
    changed = authorization.replace(old, new)
    assert changed != authorization
    assert (await server.enroll(make_csr(USER), authorization=changed)).status == status
    assert server.audit_lines == []
    assert (await server.enroll(make_csr(USER), authorization=authorization)).status == 200


@pytest.mark.spec("EST-AUTH-12", "THREAT-15")
@pytest.mark.parametrize(
    "uri",
    [
        "/.well-known/est/factory/simplereenroll",
        "/.well-known/est/simpleenroll",
        "/.well-known/est/factory/simpleenroll?",
        "/.well-known/est/factory/simpleenrol%6C",
        "https://est.example/.well-known/est/factory/simpleenroll",
        "",
        "*",
    ],
)
async def test_a_uri_that_is_not_the_request_target_is_400(server: Server, uri: str) -> None:
    answer = await server.enroll(make_csr(), authorization=respond(await challenge(server), USER, PASSWORD, uri=uri))
    assert answer.status == 400
    assert answer.text.startswith("Authorization: Digest: uri is not the target of this request")


class OtherParameters(TypedDict, total=False):
    """What is sent in place of the right ones; None leaves one out."""

    qop: str | None
    nc: str
    algorithm: str
    userhash: str
    realm: None


@pytest.mark.spec("EST-AUTH-12")
@pytest.mark.parametrize(
    "other", [{"qop": "auth-int"}, {"qop": None}, {"nc": "1"}, {"algorithm": "SHA-256-sess"}, {"userhash": "true"}, {"realm": None}]
)
async def test_what_is_malformed_or_was_not_offered_is_400(server: Server, other: OtherParameters) -> None:
    found = await challenge(server)
    answer = await server.enroll(make_csr(), authorization=respond(found, USER, PASSWORD, **other))
    assert answer.status == 400
    assert answer.text.startswith("Authorization: Digest: ")


@pytest.mark.spec("EST-AUTH-11", "THREAT-15")
async def test_md5_is_refused_where_it_is_off_though_the_secret_has_a_line_for_it(server: Server) -> None:
    found = {**await challenge(server), "algorithm": "MD5"}
    answer = await server.enroll(make_csr(), authorization=respond(found, USER, PASSWORD))
    assert answer.status == 401
    assert answer.text.endswith("the user or the password is wrong")


@pytest.mark.spec("THREAT-15")
async def test_md5_of_one_way_is_not_md5_of_another(tmp_path: Path) -> None:
    """The switch belongs to the Secret that it stands beside."""
    old = digests(line("old", "x", algorithm="MD5"), name="old")
    ways: list[dict[str, dict[str, Any]]] = [{"digest": {"secretName": "digests"}}, {"digest": {"secretName": "old", "md5": True}}]
    found = registry_of(manifest(spec=spec(*ways)), secrets=(*SECRETS, DIGEST, old))
    async with running(tmp_path, found) as server:
        assert (await server.enroll(make_csr("x"), authorization=respond(await challenge(server, "MD5"), "old", "x"))).status == 200
        assert (await server.enroll(make_csr(), authorization=respond(await challenge(server, "MD5"), USER, PASSWORD))).status == 401


@pytest.mark.spec("THREAT-15")
@pytest.mark.parametrize("value", ["", "A" * 40, "1368141352", "é"])
async def test_a_nonce_that_this_server_did_not_make_tells_nothing_of_the_password(server: Server, value: str) -> None:
    found = {**await challenge(server), "nonce": value}
    right = await server.enroll(make_csr(), authorization=respond(found, USER, PASSWORD))
    wrong = await server.enroll(make_csr(), authorization=respond(found, USER, "wrong"))
    assert (right.status, right.body) == (wrong.status, wrong.body)
    assert right.status == 401
    assert "stale" not in offered(right.all("www-authenticate"))


async def test_another_opaque_is_refused(server: Server) -> None:
    answer = await server.enroll(make_csr(), authorization=respond(await challenge(server), USER, PASSWORD, opaque='"x"'))
    assert answer.status == 401
    assert "opaque is not of this server" in answer.text


# time and replay


@pytest.mark.spec("EST-AUTH-13")
async def test_a_right_answer_over_an_old_nonce_is_stale_and_the_new_challenge_answers(server: Server) -> None:
    found = await challenge(server)
    server.clock.advance(minutes=5)
    stale = await server.enroll(make_csr(USER), authorization=respond(found, USER, PASSWORD))
    assert stale.status == 401
    fresh = offered(stale.all("www-authenticate"))
    assert fresh["stale"] == "true"
    assert (await server.enroll(make_csr(USER), authorization=respond(fresh, USER, PASSWORD))).status == 200
    wrong = await server.enroll(make_csr(), authorization=respond(found, USER, "wrong"))
    assert "stale" not in offered(wrong.all("www-authenticate")), "only who knows the password is told to go on with it"


async def test_a_nonce_is_good_to_its_last_moment(server: Server) -> None:
    found = await challenge(server)
    server.clock.advance(minutes=5, microseconds=-1000)
    assert (await server.enroll(make_csr(USER), authorization=respond(found, USER, PASSWORD))).status == 200


@pytest.mark.spec("EST-AUTH-12", "EST-AUTH-13", "THREAT-15")
async def test_a_captured_header_is_refused_on_every_connection_and_at_every_replica(server: Server, tmp_path: Path) -> None:
    """Two applications with one database are two replicas; ten connections to each."""
    authorization = respond(await challenge(server), USER, PASSWORD)
    async with running(tmp_path, registry()) as replica:
        assert (await replica.enroll(make_csr(USER), authorization=authorization)).status == 200, "a nonce of one is good at the other"
        for number in range(10):
            for one in (server, replica):
                answer = await one.enroll(make_csr(USER), authorization=authorization, connection=tls(binding=bytes([number]) * 32))
                assert answer.status == 401
                assert offered(answer.all("www-authenticate"))["stale"] == "true"
        assert [event["result"] for event in server.audit_events + replica.audit_events if "result" in event] == ["issued"]


@pytest.mark.spec("THREAT-15")
async def test_what_was_spent_is_remembered_longer_than_its_nonce_is_good(server: Server) -> None:
    """The table is swept; a replay at any moment of the nonce's life meets the row, and later the nonce is too old."""
    authorization = respond(await challenge(server), USER, PASSWORD)
    assert (await server.enroll(make_csr(USER), authorization=authorization)).status == 200
    for _ in range(12):
        server.clock.advance(minutes=1)
        other = respond(await challenge(server), USER, PASSWORD)
        assert (await server.enroll(make_csr(USER), authorization=other)).status == 200
        assert (await server.enroll(make_csr(USER), authorization=authorization)).status == 401


@pytest.mark.spec("THREAT-15")
async def test_a_digest_answer_for_one_issuer_is_nothing_at_another(tmp_path: Path) -> None:
    second = spec(label="second")
    found = registry_of(manifest(spec=spec()), manifest("second", second), secrets=(*SECRETS, DIGEST))
    async with running(tmp_path, found) as server:
        answer = await challenge(server)
        there = await server.enroll(
            make_csr(), label="second", authorization=respond(answer, USER, PASSWORD, uri="/.well-known/est/second/simpleenroll")
        )
        assert there.status == 401
        assert "stale" not in offered(there.all("www-authenticate"))


# throttling


@pytest.mark.spec("THREAT-14")
async def test_unknown_user_and_wrong_password_cost_and_say_the_same(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    compute = digest_authentication.compute_response

    def _counted(algorithm: Any, ha1: str, **parameters: Any) -> str:
        computed.append(len(ha1))
        return compute(algorithm, ha1, **parameters)

    monkeypatch.setattr(digest_authentication, "compute_response", _counted)
    wrong = await server.enroll(make_csr(), authorization=respond(await challenge(server), USER, "wrong"))
    unknown = await server.enroll(make_csr(), authorization=respond(await challenge(server), "nobody", "wrong"))
    assert (wrong.status, wrong.body) == (unknown.status, unknown.body)
    assert computed == [64, 64]


@pytest.mark.spec("THREAT-14")
async def test_of_a_thousand_guesses_only_the_free_ones_are_checked(server: Server) -> None:
    found = await challenge(server)
    statuses = [(await server.enroll(b"", authorization=respond(found, USER, f"guess {number}"))).status for number in range(1_000)]
    assert (statuses.count(401), statuses.count(503)) == (10, 990)
    right = await server.enroll(make_csr(USER), authorization=respond(found, USER, PASSWORD), source="198.51.100.1")
    assert right.status == 503
    server.clock.advance(seconds=2)
    assert (await server.enroll(make_csr(USER), authorization=respond(found, USER, PASSWORD), source="198.51.100.1")).status == 200


@pytest.mark.spec("THREAT-14")
async def test_guesses_count_by_source_unless_the_service_hides_it(server: Server, tmp_path: Path) -> None:
    async def guessed(at: Server) -> list[int]:
        found = await challenge(at)
        answers = [await at.enroll(b"", authorization=respond(found, f"user-{number}", PASSWORD)) for number in range(25)]
        return [answer.status for answer in answers]

    assert await guessed(server) == [401] * 20 + [503] * 5
    (tmp_path / "hidden").mkdir()
    async with running(tmp_path / "hidden", registry(), configuration=AppConfiguration(throttle_sources=False)) as hidden:
        assert await guessed(hidden) == [401] * 25


async def test_stale_nonces_are_no_guesses(server: Server) -> None:
    found = await challenge(server)
    server.clock.advance(minutes=5)
    statuses = {(await server.enroll(make_csr(), authorization=respond(found, USER, PASSWORD))).status for _ in range(30)}
    assert statuses == {401}


# beside other ways


async def test_digest_at_an_issuer_that_takes_none_is_passed_over_for_the_certificate(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        answer = await server.enroll(make_csr(), authorization="Digest abc", connection=tls(leaf()))
        assert answer.status == 200
        refused = await server.enroll(make_csr(), authorization="Digest abc")
        assert refused.text.endswith("this issuer takes no HTTP Digest")


async def test_basic_at_an_issuer_of_digest_is_told_so(server: Server) -> None:
    answer = await server.enroll(make_csr(), authorization=basic(USER, PASSWORD))
    assert answer.status == 401
    assert answer.text == "authenticate by HTTP Digest; this issuer takes no passwords by HTTP Basic"


async def test_an_issuer_whose_digests_are_not_loaded_is_503_for_those_who_bring_one(tmp_path: Path) -> None:
    async with running(tmp_path, registry()) as server:
        found = await challenge(server)
        server.issuers.current = registry_of(manifest(spec=spec()))
        assert (await server.enroll(make_csr(), authorization=respond(found, USER, PASSWORD))).status == 503
        assert server.issuers.current.by_label["factory"].reason == "SecretMissing"


# the Secret

BROKEN = {
    "no member": ({"auth": b"x"}, "digest: it is missing; put lines user:realm:algorithm:HA1 there"),
    "nobody": ({"digest": b"# nobody\n\n"}, "it holds no user"),
    "not UTF-8": ({"digest": b"\xff:a:MD5:" + b"0" * 32}, "digest: it is not UTF-8"),
    "htdigest's form": ({"digest": b"a:factory:" + b"0" * 32}, "digest line 1: it is not user:realm:algorithm:HA1"),
    "no realm": ({"digest": b"a::MD5:" + b"0" * 32}, "digest line 1: it is not user:realm:algorithm:HA1"),
    "another algorithm": ({"digest": b"\na:factory:SHA-512-256:" + b"0" * 64}, "digest line 2: the algorithm is SHA-256 or MD5"),
    "a session algorithm": ({"digest": b"a:factory:MD5-sess:" + b"0" * 32}, "digest line 1: the algorithm is SHA-256 or MD5"),
    "a short HA1": ({"digest": b"a:factory:SHA-256:" + b"0" * 32}, "digest line 1: HA1 of SHA-256 is 64 hexadecimal digits"),
    "no hex": ({"digest": b"a:factory:MD5:" + b"g" * 32}, "digest line 1: HA1 of MD5 is 32 hexadecimal digits"),
    "a password": ({"digest": b"a:factory:MD5:secret-password"}, "digest line 1: HA1 of MD5 is 32 hexadecimal digits"),
    "twice": ({"digest": b"a:f:MD5:" + b"0" * 32 + b"\na:f:md5:" + b"1" * 32}, "digest line 2: the user 'a' is there twice"),
    "a control character": ({"digest": b"a\x07b:f:MD5:" + b"0" * 32}, "no control character"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_unusable_line_is_a_configuration_error_that_names_it_and_no_hash(case: str) -> None:
    data, expected = BROKEN[case]
    with pytest.raises(ConfigurationError) as raised:
        load([secret("digests", data)])
    assert expected in raised.value.message
    assert raised.value.reason == "SecretInvalidData"
    assert not any(told in raised.value.message for told in ("0" * 32, "g" * 32, "secret-password"))


async def test_a_realm_that_is_no_label_and_md5_that_is_off_are_told_on_the_issuer(tmp_path: Path) -> None:
    issuer = registry().by_label["factory"]
    assert issuer.ready
    assert issuer.message.endswith(
        "Secret devices/digests: digest line 2: MD5 is off for this issuer (digest.md5), so the line lets nobody in"
    )
    issuer = registry(md5=True).by_label["factory"]
    assert issuer.message.endswith("digest line 4: the realm 'ca:12' is no label of this issuer (factory), so the line lets nobody in")
    issuer = registry(md5=True, labels=["ca:12"]).by_label["factory"]
    assert issuer.message == "the CA and every Secret that the issuer names are in order"
