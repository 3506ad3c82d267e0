"""HTTP Digest: the published responses, what a header must hold, nonces that only their maker can make."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypedDict

import pytest

from estcore.digest_authentication import (
    DigestAlgorithm,
    DigestCredentials,
    compute_response,
    hash_a1,
    make_nonce,
    make_opaque,
    nonce_time,
    parse_credentials,
    render_challenge,
    render_credentials,
)
from estcore.errors import BadHeader
from estcore.http_authentication import parse_challenges

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
KEY = b"k" * 32


class Exchange(TypedDict):
    """What is hashed beside A1."""

    method: str
    uri: str
    nonce: str
    cnonce: str


# RFC 7616 section 3.9.1
MUFASA = {"user": "Mufasa", "realm": "http-auth@example.org", "password": "Circle of Life"}
EXCHANGE: Exchange = {
    "method": "GET",
    "uri": "/dir/index.html",
    "nonce": "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
    "cnonce": "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
}
RESPONSES = {
    DigestAlgorithm.SHA_256: "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
    DigestAlgorithm.MD5: "8ca523f5e9506fed4657c9700eebdbec",
}
PUBLISHED = (
    'username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", algorithm=SHA-256, '
    'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, '
    'response="753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)
# RFC 7030 Appendix A.3, as libest sends it: qop quoted, no algorithm, no opaque; the password was not published
LIBEST = (
    'username="estuser", realm="estrealm", nonce="1368141352", uri="/.well-known/est/simpleenroll", cnonce="     MTYzMjM0MzU4", '
    'nc=00000001, qop="auth", response="144cc27f96046f1d70eb16db20f75f22"'
)


@pytest.mark.spec("EST-AUTH-10")
@pytest.mark.parametrize("algorithm", DigestAlgorithm)
def test_the_responses_of_rfc_7616_come_out(algorithm: DigestAlgorithm) -> None:
    assert compute_response(algorithm, hash_a1(algorithm, **MUFASA), nonce_count=1, **EXCHANGE) == RESPONSES[algorithm]


@pytest.mark.spec("EST-AUTH-10")
def test_a_session_variant_hashes_nonce_and_cnonce_into_a1() -> None:
    """RFC 7616 section 3.4.2: A1 = H(user:realm:password):nonce:cnonce; checked against the formula written out."""
    algorithm = DigestAlgorithm.SHA_256
    ha1 = algorithm.hash(f"{algorithm.hash('Mufasa:http-auth@example.org:Circle of Life')}:{EXCHANGE['nonce']}:{EXCHANGE['cnonce']}")
    ha2 = algorithm.hash("GET:/dir/index.html")
    expected = algorithm.hash(f"{ha1}:{EXCHANGE['nonce']}:00000001:{EXCHANGE['cnonce']}:auth:{ha2}")
    assert compute_response(algorithm, hash_a1(algorithm, **MUFASA), nonce_count=1, session=True, **EXCHANGE) == expected


@pytest.mark.spec("EST-AUTH-09", "EST-AUTH-12")
def test_the_published_header_is_read() -> None:
    assert parse_credentials(PUBLISHED) == DigestCredentials(
        user="Mufasa",
        realm="http-auth@example.org",
        nonce=EXCHANGE["nonce"],
        uri="/dir/index.html",
        algorithm=DigestAlgorithm.SHA_256,
        nonce_count=1,
        cnonce=EXCHANGE["cnonce"],
        response=RESPONSES[DigestAlgorithm.SHA_256],
        opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS",
    )


@pytest.mark.spec("EST-AUTH-09")
def test_no_algorithm_is_md5_and_what_libest_and_bouncy_castle_quote_is_read() -> None:
    libest = parse_credentials(LIBEST)
    assert (libest.algorithm, libest.user, libest.opaque, libest.nonce_count) == (DigestAlgorithm.MD5, "estuser", None, 1)
    everything_quoted = re.sub(r"=([A-Za-z0-9-]+)(,|$)", r'="\1"\2', PUBLISHED).replace("SHA-256", "sha-256")
    assert 'nc="00000001"' in everything_quoted
    assert parse_credentials(everything_quoted) == parse_credentials(PUBLISHED)


REFUSED = {
    "no user": (("username=", "user="), "username"),
    "no realm": (("realm=", "x="), "realm is missing"),
    "no nonce": ((" nonce=", " x="), "nonce is missing"),
    "no uri": (("uri=", "x="), "uri is missing"),
    "no response": (("response=", "x="), "response is missing"),
    "no cnonce": (("cnonce=", "x="), "cnonce is missing"),
    "no nc": (("nc=00000001", "x=y"), "nc is missing"),
    "RFC 2069, without qop": (("qop=auth, ", ""), "qop is missing"),
    "auth-int": (("qop=auth", "qop=auth-int"), "qop is auth at this server"),
    "a session variant": (("SHA-256", "SHA-256-sess"), "algorithm is SHA-256 or MD5 at this server"),
    "SHA-512-256": (("SHA-256", "SHA-512-256"), "algorithm is SHA-256 or MD5 at this server"),
    "userhash": (("qop=auth", "qop=auth, userhash=true"), "userhash is not offered"),
    "nc of zero": (("00000001", "00000000"), "nc is eight hexadecimal digits"),
    "nc of seven digits": (("00000001", "0000001"), "nc is eight hexadecimal digits"),
    "nc of nine digits": (("00000001", "000000001"), "nc is eight hexadecimal digits"),
    "nc in capitals": (("00000001", "0000000A"), "nc is eight hexadecimal digits"),
    "a response of MD5's length": ((RESPONSES[DigestAlgorithm.SHA_256], RESPONSES[DigestAlgorithm.MD5]), "response is 64"),
    "a response that is not hex": ((RESPONSES[DigestAlgorithm.SHA_256], "g" * 64), "response is 64"),
    "the user twice": (('username="Mufasa"', "username=\"Mufasa\", username*=UTF-8''Mufasa"), "exactly one of username"),
    "a parameter twice": (("qop=auth", "qop=auth, qop=auth"), "twice"),
    "a colon in the user": (("Mufasa", "Mu:fasa"), "no colon"),
    "a control character in the user": (('username="Mufasa"', "username*=UTF-8''Mu%00fasa"), "no control character"),
    "another charset": (('username="Mufasa"', "username*=ISO-8859-1''Mufasa"), "UTF-8''"),
    "a language": (('username="Mufasa"', "username*=UTF-8'en'Mufasa"), "UTF-8''"),
    "a user that is not UTF-8": (("Mufasa", "M\xfcfasa"), "not UTF-8"),
    "a long value": (("Mufasa", "M" * 513), "longer than 512"),
    "a text behind it": (("qop=auth", "qop=auth nonsense"), "not a list"),
}


@pytest.mark.spec("EST-AUTH-12", "THREAT-15")
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_missing_malformed_or_not_offered_is_refused_by_name(case: str) -> None:
    (old, new), expected = REFUSED[case]
    changed = PUBLISHED.replace(old, new)
    assert changed != PUBLISHED
    with pytest.raises(BadHeader) as raised:
        parse_credentials(changed)
    assert expected in raised.value.message
    assert RESPONSES[DigestAlgorithm.SHA_256] not in raised.value.message


@pytest.mark.spec("EST-AUTH-12")
@pytest.mark.parametrize("user", ["Mufasa", "", 'a "b" \\c', "Jäsøn Doe", "日本"])
def test_what_a_client_renders_a_server_reads(user: str) -> None:
    """RFC 7616 section 3.9.2 has the user Jäsøn Doe, as username*=UTF-8''J%C3%A4s%C3%B8n%20Doe."""
    credentials = replace(parse_credentials(PUBLISHED), user=user)
    scheme, _, text = render_credentials(credentials).partition(" ")
    assert scheme == "Digest"
    assert parse_credentials(text) == credentials
    assert ", nc=00000001, " in text
    assert ", qop=auth, " in text
    assert ", algorithm=SHA-256, " in text
    if user == "Jäsøn Doe":
        assert text.startswith("username*=UTF-8''J%C3%A4s%C3%B8n%20Doe, ")


def test_a_user_sent_as_raw_utf_8_is_read_as_curl_sends_it() -> None:
    as_latin_1 = "Jäsøn".encode().decode("latin-1")
    assert parse_credentials(PUBLISHED.replace("Mufasa", as_latin_1)).user == "Jäsøn"


@pytest.mark.spec("EST-AUTH-09", "EST-AUTH-13")
def test_a_challenge_quotes_what_the_rfc_quotes() -> None:
    assert render_challenge(DigestAlgorithm.SHA_256, realm="factory", nonce="n", opaque="o", stale=True) == (
        'Digest realm="factory", qop="auth", algorithm=SHA-256, nonce="n", opaque="o", charset=UTF-8, stale=true'
    )
    assert "stale" not in render_challenge(DigestAlgorithm.MD5, realm="factory", nonce="n", opaque="o")
    assert render_challenge(DigestAlgorithm.SHA_256, realm="factory", nonce="n", opaque="o", stale=True, all_quoted=True) == (
        'Digest realm="factory", qop="auth", algorithm="SHA-256", nonce="n", opaque="o"'
    )
    (read,) = parse_challenges([render_challenge(DigestAlgorithm.MD5, realm='fac"tory', nonce="n", opaque="o")])
    assert (read.scheme, read.parameters["realm"], read.parameters["algorithm"]) == ("digest", 'fac"tory', "MD5")


@pytest.mark.spec("THREAT-15")
def test_a_nonce_says_when_it_was_made_to_whoever_has_the_key_and_for_its_realm_only() -> None:
    made = NOW + timedelta(milliseconds=123)
    nonce = make_nonce(KEY, realm="factory", now=made, random_octets=b"r" * 8)
    assert nonce_time(KEY, nonce, realm="factory") == made
    assert nonce_time(KEY, nonce, realm="other") is None
    assert nonce_time(b"x" * 32, nonce, realm="factory") is None
    assert len(nonce) < 64, "libest keeps no more"
    assert make_nonce(KEY, realm="factory", now=made, random_octets=b"s" * 8) != nonce


@pytest.mark.spec("THREAT-15")
def test_a_nonce_that_was_changed_anywhere_is_nobodys() -> None:
    nonce = make_nonce(KEY, realm="factory", now=NOW, random_octets=b"r" * 8)
    for place, character in enumerate(nonce):
        changed = nonce[:place] + ("A" if character != "A" else "B") + nonce[place + 1 :]
        assert nonce_time(KEY, changed, realm="factory") is None
    for other in ("", nonce[:-1], nonce + "A", nonce + "=", nonce.replace(nonce[0], "/", 1), "é" * 40, make_opaque(KEY, realm="factory")):
        assert nonce_time(KEY, other, realm="factory") is None
