"""What a user configures: where the server is, and what to authenticate with."""

import pytest

from estclient import Basic, Bearer, ClientCertificate, address
from estcore.errors import ConfigurationError


@pytest.mark.spec("EST-URI-07")
@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("https://est.example", "factory"),
        ("https://est.example/", "factory"),
        ("https://EST.example:443/.well-known/est/factory", None),
        ("https://est.example/.well-known/est/factory/", "factory"),
        ("https://est.example/.well-known/est", "factory"),
    ],
)
def test_every_form_of_the_base_uri_means_the_same(url: str, label: str | None) -> None:
    assert address.parse(url, label) == address.Address(host="est.example", port=443, label="factory")


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://est.example", "est.example"),
        ("https://est.example:8443", "est.example:8443"),
        ("https://[::1]:8443", "[::1]:8443"),
        ("https://127.0.0.1", "127.0.0.1"),
    ],
)
def test_host_names_the_port_where_it_is_not_the_usual_one(url: str, authority: str) -> None:
    assert address.parse(url).authority == authority


@pytest.mark.spec("EST-TLS-01")
@pytest.mark.parametrize("url", ["http://est.example", "est.example", "ftp://est.example", "HTTP://est.example", "//est.example", ""])
def test_only_https_is_spoken(url: str) -> None:
    with pytest.raises(ConfigurationError, match="https"):
        address.parse(url)


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("https://", None),
        ("https://est.example:0", None),
        ("https://est.example:99999", None),
        ("https://user:secret@est.example", None),
        ("https://est.example?x=1", None),
        ("https://est.example#x", None),
        ("https://est.example/other", None),
        ("https://est.example/.well-known/est/a/b", None),
        ("https://est.example/.well-known/est/a", "b"),
        ("https://est.example/.well-known/est/cacerts", None),
        ("https://bücher.example", None),
        ("https://[::1", None),
    ],
)
def test_what_is_no_address_is_told_without_a_secret(url: str, label: str | None) -> None:
    with pytest.raises(ConfigurationError) as error:
        address.parse(url, label)
    assert "secret" not in error.value.message


@pytest.mark.spec("EST-AUTH-07", "EST-AUTH-08")
@pytest.mark.parametrize(
    ("user", "password", "header"),
    [
        ("Aladdin", "open sesame", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),  # RFC 7617 section 2
        ("test", "123£", "Basic dGVzdDoxMjPCow=="),  # RFC 7617 section 2.1
        ("", "pw", "Basic OnB3"),
    ],
)
def test_basic_is_written_as_rfc_7617_does(user: str, password: str, header: str) -> None:
    assert Basic(user=user, password=password).header() == header


@pytest.mark.spec("EST-AUTH-08")
@pytest.mark.parametrize(("user", "password"), [("a:b", "x"), ("a\n", "x"), ("a", "x\r\nHost: evil"), ("a\0", "x")])
def test_basic_refuses_what_would_be_read_otherwise(user: str, password: str) -> None:
    with pytest.raises(ConfigurationError, match="RFC 7617"):
        Basic(user=user, password=password)


def test_a_token_is_read_anew_each_time() -> None:
    tokens = iter(["one\n", " two "])
    bearer = Bearer(token=lambda: next(tokens))
    assert [bearer.header(), bearer.header()] == ["Bearer one", "Bearer two"]


@pytest.mark.parametrize("token", ["", " \n", "a b", "a\r\nHost: evil", "ü"])
def test_what_is_no_token_is_not_sent(token: str) -> None:
    with pytest.raises(ConfigurationError, match="token"):
        Bearer(token=lambda: token).header()


@pytest.mark.spec("THREAT-36")
def test_no_secret_shows_in_a_repr() -> None:
    secret = "correct horse"
    shown = [
        repr(Basic(user="u", password=secret)),
        repr(Bearer(token=lambda: secret)),
        repr(ClientCertificate(chain_pem=b"", key_pem=secret.encode())),
    ]
    assert secret not in "".join(shown)
