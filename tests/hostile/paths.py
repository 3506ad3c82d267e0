"""Unauthenticated requests to enrol at every variant of path, method, Host and label that somebody may take for the real one.

Each carries a CSR that would be issued to the right client, over a connection without a certificate.
"""

from estcore import transfer
from tests.hostile.case import EST, PKCS10, Case, Cases, prefixed
from tests.server.app_fixtures import make_csr

BODY = transfer.encode_body(make_csr("device-1", "a.devices.example"))
NOT_HERE = (404, "UnknownLabel")
NOT_SO = (405, "WrongMethod")
HOSTS = {
    "a path in Host (CVE-2026-48710)": "a/.well-known/est/cacerts?",
    "an empty Host": "",
    "a Host with a port": "a:99999",
    "a Host with a user": "user@a",
    "an absolute Host": "https://a/",
    "a Host with a line feed": "a\nX: y",
    "a Host of 1,000 letters": "a" * 1000,
    "a Host of another issuer": "other",
    "localhost": "localhost",
    "the metadata address": "169.254.169.254",
}


def at(path: str | bytes, status: int = 404, reason: str = "UnknownLabel", method: str = "POST", *headers: tuple[str, str]) -> Case:
    return Case(status=status, reason=reason, method=method, path=path, headers=(PKCS10, *headers), body=lambda: BODY)


OPERATIONS = {"simpleenroll": (401, "Unauthenticated"), "simplereenroll": (403, "NoClientCertificate")}

PATHS: dict[str, Case] = {
    path: at(path)
    for path in (
        # what is before the operation
        "",
        "*",
        "/",
        "/simpleenroll",
        "/est/simpleenroll",
        "/.well-known/simpleenroll",
        "/.well-known/est",
        "/.well-known/est/",
        "/.well-known/est/factory",
        "/.well-known/est/factory/",
        "/.well-known/EST/simpleenroll",
        "/.Well-Known/est/simpleenroll",
        "/.well-known/est2/simpleenroll",
        "/.well-known/estsimpleenroll",
        "/well-known/est/simpleenroll",
        "/.well-known/brski/requestvoucher",
        "/.well-known/cmp",
        "/.well-known/acme",
        "/.well-known/core",
        "/cgi-bin/pkiclient.exe",
        "/scep",
        "//.well-known/est/simpleenroll",
        "/.well-known//est/simpleenroll",
        "/.well-known/est//simpleenroll",
        "/.well-known/est///simpleenroll",
        "/.well-known/est/factory//simpleenroll",
        "/.well-known/est/factory/factory/simpleenroll",
        "/.well-known/est/factory/other/simpleenroll",
        "/.well-known/est/simpleenroll/factory",
        "/.well-known/est/simpleenroll/simpleenroll/simpleenroll",
        "/.well-known/est/cacerts/../simpleenroll",
        "/.well-known/est/factory/../simpleenroll",
        "/.well-known/est/factory/./simpleenroll",
        "/.well-known/est/./simpleenroll",
        "/.well-known/est/../est/simpleenroll",
        "/./.well-known/est/simpleenroll",
        "/../.well-known/est/simpleenroll",
        "/a/../.well-known/est/simpleenroll",
        "/.well-known/est/..;/est/simpleenroll",
        "/.well-known;a/est/simpleenroll",
        "/.well-known/est;a/simpleenroll",
        "/.well-known/est/factory;a=b/simpleenroll",
        "/.well-known/est/;/simpleenroll",
        "/.well-known/est\\simpleenroll",
        "\\.well-known\\est\\simpleenroll",
        "/.well-known/est/factory\\simpleenroll",
        # escapes
        "/%2ewell-known/est/simpleenroll",
        "/.well-known%2fest/simpleenroll",
        "/.well-known/est%2fsimpleenroll",
        "/.well-known/est%2Fsimpleenroll",
        "/.well-known/%65st/simpleenroll",
        "/.well-known/est/%73impleenroll",
        "/.well-known/est/simpleenrol%6c",
        "/.well-known/est/simpleenrol%6C",
        "/.well-known/est/factory%2fsimpleenroll",
        "/.well-known/est/factory%252fsimpleenroll",
        "/.well-known/est/%66actory/simpleenroll",
        "/.well-known/est/factory%00/simpleenroll",
        "/.well-known/est/factory%0a/simpleenroll",
        "/.well-known/est/factory%20/simpleenroll",
        "/.well-known/est/factory%3a/simpleenroll",
        "/.well-known/est/factory%3A12/simpleenroll",
        "/.well-known/est/%3A/simpleenroll",
        "/.well-known/est/%2e/simpleenroll",
        "/.well-known/est/%2e%2e/est/simpleenroll",
        "/.well-known/est/%252e/simpleenroll",
        "/.well-known/est/%c0%ae/simpleenroll",
        "/.well-known/est/%u002e/simpleenroll",
        "/.well-known/est/%/simpleenroll",
        "/.well-known/est/%zz/simpleenroll",
        "/.well-known/est/simpleenroll%00",
        "/.well-known/est/simpleenroll%00.html",
        "/.well-known/est/simpleenroll%0d%0aX:%20y",
        "/.well-known/est/simpleenroll%20",
        "/.well-known/est/simpleenroll%2f",
        "/.well-known/est/simpleenroll%3f",
        "/.well-known/est/simpleenroll%23",
        # what is behind the operation
        "/.well-known/est/simpleenroll/",
        "/.well-known/est/simpleenroll//",
        "/.well-known/est/simpleenroll/.",
        "/.well-known/est/simpleenroll/..",
        "/.well-known/est/simpleenroll/cacerts/",
        "/.well-known/est/simpleenroll;a",
        "/.well-known/est/simpleenroll;a=b",
        "/.well-known/est/simpleenroll.json",
        "/.well-known/est/simpleenroll.",
        "/.well-known/est/simpleenroll,",
        "/.well-known/est/simpleenroll ",
        "/.well-known/est/ simpleenroll",
        "/.well-known/est/simpleenroll\t",
        "/.well-known/est/simpleenroll\n",
        "/.well-known/est/simpleenroll\r\n",
        "/.well-known/est/simpleenroll\x00",
        "/.well-known/est/simpleenroll#a",
        "/.well-known/est/simpleenroll?",
        "/.well-known/est/simpleenroll&a",
        # other operations
        "/.well-known/est/simpleEnroll",
        "/.well-known/est/SIMPLEENROLL",
        "/.well-known/est/Simpleenroll",
        "/.well-known/est/simpleenrol",
        "/.well-known/est/simpleenrolll",
        "/.well-known/est/simpleenroll2",
        "/.well-known/est/simple-enroll",
        "/.well-known/est/enroll",
        "/.well-known/est/reenroll",
        "/.well-known/est/simplereenrol",
        "/.well-known/est/sen",
        "/.well-known/est/sren",
        "/.well-known/est/skg",
        "/.well-known/est/crts",
        "/.well-known/est/revoke",
        "/.well-known/est/renew",
        "/.well-known/est/issue",
        "/.well-known/est/sign",
        "/.well-known/est/admin",
        "/.well-known/est/pal",
        "/.well-known/est/crls",
        "/.well-known/est/firmware",
        "/.well-known/est/symmetrickeys",
        "/.well-known/est/serverkeygen/return",
        "/.well-known/est/getcert",
        "/.well-known/est/requestvoucher",
        # pages of frameworks and of others
        "/docs",
        "/redoc",
        "/openapi.json",
        "/metrics",
        "/healthz",
        "/readyz",
        "/debug/pprof/",
        "/admin",
        "/api/v1",
        "/graphql",
        "/.git/config",
        "/.env",
        "/favicon.ico",
        "/robots.txt",
        "/index.html",
        "/est-issuer",
        "/est-issuer/v1",
        "/est-issuer/v1/",
        "/est-issuer/v1/issuers/",
        "/est-issuer/v1//issuers",
        "/est-issuer/v1/issuers/devices",
        "/est-issuer/v1/issuers;a",
        "/est-issuer/v1/%69ssuers",
        "/est-issuer/v2/issuers",
        "/EST-ISSUER/v1/issuers",
        "/.well-known/est/est-issuer/v1/issuers",
        # other forms of a target
        "http://factory/.well-known/est/simpleenroll",
        "https://factory/.well-known/est/simpleenroll",
        "//factory/.well-known/est/simpleenroll",
        "factory:443",
        ".well-known/est/simpleenroll",
        "?",
        "#",
        # octets beyond ASCII, and lengths
        "/.well-known/est/fact\xf6ry/simpleenroll",
        "/.well-known/est/\xff\xfe/simpleenroll",
        "/.well-known/est/simpleenr\xf8ll",
        "/.well-known/est/\u00b7/simpleenroll",
        f"/.well-known/est/{'a' * 317}/simpleenroll",
        f"/.well-known/est/{'a' * 318}/simpleenroll",
        f"/.well-known/est/{'a' * 60_000}/simpleenroll",
        f"/.well-known/est/{'a/' * 20_000}simpleenroll",
        f"/.well-known/est/{'../' * 10_000}simpleenroll",
        f"/.well-known/est/{'%2e' * 10_000}/simpleenroll",
        f"/.well-known/est/{'a' * 60_000}",
        # labels
        "/.well-known/est/FACTORY/simpleenroll",
        "/.well-known/est/Factory/simpleenroll",
        "/.well-known/est/factor/simpleenroll",
        "/.well-known/est/factoryy/simpleenroll",
        "/.well-known/est/factory./simpleenroll",
        "/.well-known/est/.factory/simpleenroll",
        "/.well-known/est/factory:/simpleenroll",
        "/.well-known/est/factory@/simpleenroll",
        "/.well-known/est/factory,other/simpleenroll",
        "/.well-known/est/factory+other/simpleenroll",
        "/.well-known/est/devices.factory/simpleenroll",
        "/.well-known/est/devices.unknown/simpleenroll",
        "/.well-known/est/devices..factory/simpleenroll",
        "/.well-known/est/devices%2Efactory/simpleenroll",
        "/.well-known/est/default.factory/simpleenroll",
        "/.well-known/est/devices/simpleenroll",
        "/.well-known/est/uid-factory/simpleenroll",
        "/.well-known/est/*/simpleenroll",
        "/.well-known/est/{label}/simpleenroll",
        "/.well-known/est/null/simpleenroll",
        "/.well-known/est/undefined/simpleenroll",
        "/.well-known/est/None/simpleenroll",
        "/.well-known/est/0/simpleenroll",
        "/.well-known/est/-/simpleenroll",
        "/.well-known/est/simpleenroll/simplereenroll/",
        "/.well-known/est/cacerts/simpleenroll",
        "/.well-known/est/simpleenroll/simpleenroll",
    )
}

METHODS: dict[str, Case] = {
    f"{method!r} {label}{operation}": at(f"{EST}/{label}{operation}", *NOT_SO, method)
    for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "post", "Post", "POST ", "POSTX", "")
    for label in ("", "factory/")
    for operation in OPERATIONS
} | {
    f"{method!r} cacerts": at(f"{EST}/cacerts", *NOT_SO, method)
    for method in ("POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "GETX", "")
}

AT_HOSTS: dict[str, Case] = {
    f"{name}, {operation}": at(f"{EST}/factory/{operation}", *answer, "POST", ("Host", host))
    for name, host in HOSTS.items()
    for operation, answer in OPERATIONS.items()
}

RIGHT_PATHS: dict[str, Case] = {
    f"{label}{operation}": at(f"{EST}/{label}{operation}", *answer)
    for label in ("", "factory/", "other/", "bound/")
    for operation, answer in OPERATIONS.items()
} | {
    "certificates/simpleenroll": at(f"{EST}/certificates/simpleenroll", 403, "Unauthenticated"),
    "certificates/simplereenroll": at(f"{EST}/certificates/simplereenroll", 403, "NoClientCertificate"),
}


def _short(cases: Cases) -> dict[str, Case]:
    return {
        (name if len(name) <= 80 else f"{name[:40]}… of {len(name)} characters, {number}"): case
        for number, (name, case) in enumerate(cases.items())
    }


CASES: dict[str, Case] = prefixed(path=_short(PATHS), method=METHODS, host=AT_HOSTS, operation=RIGHT_PATHS)
