"""The spec of an issuer: what it takes, and what it says of each mistake."""

from datetime import timedelta
from typing import Any

import pytest

from estcore import issuer_spec
from estcore.errors import ConfigurationError, Forbidden
from estcore.issuer_spec import KeyAlgorithm, parse_duration
from estcore.usages import Usage, parse_usage_names

EXAMPLE: dict[str, Any] = {
    "ca": {"secretName": "factory-ca", "generate": {"commonName": "Factory CA", "keyAlgorithm": "ECDSA-P256", "duration": "87600h"}},
    "est": {
        "label": "factory",
        "authentication": [
            {"certificate": {"issuedBy": "this"}},
            {"certificate": {"caSecretName": "manufacturer-roots"}},
            {"basic": {"secretName": "device-passwords"}},
            {"serviceAccountToken": {"audience": "est-issuer"}},
        ],
        "channelBinding": "Optional",
    },
    "policy": {
        "duration": {"default": "2160h", "max": "8760h"},
        "keys": ["ECDSA-P256", "ECDSA-P384", "RSA-2048", "RSA-3072", "RSA-4096", "Ed25519"],
        "usages": ["digital signature", "key encipherment", "server auth", "client auth"],
        "rules": [
            {
                "from": {"namespaces": ["*"]},
                "dnsNames": ["*.{namespace}.svc", "*.{namespace}.svc.cluster.local"],
                "uris": ["spiffe://cluster.local/ns/{namespace}/sa/*"],
            },
            {
                "from": {"authentication": "basic", "users": ["device-*"]},
                "subject": {"commonName": "{user}"},
                "channelBinding": "Required",
            },
        ],
    },
}


def test_the_documented_example_is_read() -> None:
    spec = issuer_spec.parse(EXAMPLE, where="EstIssuer devices/factory")
    assert spec.ca.generate is not None
    assert spec.ca.generate.duration == timedelta(hours=87600)
    assert spec.policy.keys == tuple(KeyAlgorithm(key) for key in EXAMPLE["policy"]["keys"])
    assert spec.policy.rules[1].subject is not None
    assert spec.policy.rules[1].subject.common_name == "{user}"


def test_what_is_left_out_has_safe_defaults() -> None:
    spec = issuer_spec.parse({"ca": CA}, where="test")
    assert spec.est.authentication == ()
    assert spec.policy.rules == ()
    assert spec.policy.duration.default == timedelta(days=90)
    assert Usage.CODE_SIGNING not in spec.policy.usages


CA = {"secretName": "ca"}
MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    ({}, "spec.ca", "this field is required"),
    ({"ca": CA, "polcy": {}}, "spec.polcy", "this field is unknown"),
    ({"ca": "ca"}, "spec.ca", "expected an object"),
    ({"ca": {"secretName": "Not a name"}}, "spec.ca.secretName", "the name of a Secret"),
    ({"ca": {"secretName": 5}}, "spec.ca.secretName", "string"),
    ({"ca": {"secretName": "ca", "generate": {}}}, "spec.ca.generate.commonName", "required"),
    ({"ca": {"secretName": "ca", "generate": {"commonName": "a" * 65}}}, "spec.ca.generate.commonName", "64"),
    ({"ca": CA | {"generate": {"commonName": "Evil\u202eCA"}}}, "spec.ca.generate.commonName", "bidi"),
    ({"ca": CA | {"generate": {"commonName": " A"}}}, "spec.ca.generate.commonName", "space"),
    ({"ca": {"secretName": "ca", "generate": {"commonName": "A", "duration": "10m"}}}, "spec.ca.generate", "at least 1h"),
    (
        {"ca": CA | {"generate": {"commonName": "A", "keyAlgorithm": "RSA-1"}}},
        "spec.ca.generate.keyAlgorithm",
        "RSA-2048",
    ),
    ({"ca": CA, "est": {"label": "simpleenroll"}}, "spec.est", "name of an EST operation"),
    ({"ca": CA, "est": {"label": "a/b"}}, "spec.est.label", "a label is"),
    ({"ca": CA, "est": {"authentication": [{}]}}, "spec.est.authentication[0]", "exactly one"),
    ({"ca": CA, "est": {"authentication": {"basic": {}}}}, "spec.est.authentication", "expected a list"),
    (
        {"ca": CA, "est": {"authentication": [{"certificate": {}}]}},
        "spec.est.authentication[0].certificate",
        "exactly one",
    ),
    ({"ca": CA, "est": {"channelBinding": "Sometimes"}}, "spec.est.channelBinding", "'Optional' or 'Required'"),
]
POLICY_MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    ({"duration": {"default": "8761h"}}, "spec.policy.duration", "default is longer than max"),
    ({"duration": {"default": "1m"}}, "spec.policy.duration", "at least 5m"),
    ({"duration": {"default": "90d"}}, "spec.policy.duration.default", "written like 2160h"),
    ({"duration": {"default": 90}}, "spec.policy.duration.default", "written like 2160h"),
    ({"keys": []}, "spec.policy.keys", "at least 1"),
    ({"keys": ["P-256"]}, "spec.policy.keys[0]", "ECDSA-P256"),
    ({"usages": ["cert sign"]}, "spec.policy.usages[0]", "digital signature"),
    ({"usages": ["server auth"]}, "spec.policy", "at least one key usage"),
    ({"usages": ["key encipherment"]}, "spec.policy", "none is possible for ECDSA-P256 keys"),
    ({"usages": ["key agreement"], "keys": ["RSA-2048"]}, "spec.policy", "none is possible for RSA-2048 keys"),
    ({"rules": [{"from": {"users": []}}]}, "spec.policy.rules[0].from", "users is empty"),
    ({"rules": [{"from": {"serviceAccounts": []}}]}, "spec.policy.rules[0].from", "serviceAccounts is empty"),
    ({"rules": [{"from": {"user": ["a"]}}]}, "spec.policy.rules[0].from.user", "unknown"),
    ({"rules": [{}, {"dnsNames": ["ok.example", "web-*.example"]}]}, "spec.policy.rules[1].dnsNames[1]", "whole label"),
    ({"rules": [{"uris": ["spiffe://*"]}]}, "spec.policy.rules[0].uris[0]", "authority"),
    ({"rules": [{"ipAddresses": ["10.0.0.1/8"]}]}, "spec.policy.rules[0].ipAddresses[0]", "host bits"),
    ({"rules": [{"emailAddresses": ["example.com"]}]}, "spec.policy.rules[0].emailAddresses[0]", "rfc822Name"),
    (
        {"rules": [{"otherNames": [{"oid": "1.3.6.1.4.1.311.20.2.3", "utf8Value": "*"}]}]},
        "spec.policy.rules[0].otherNames[0]",
        "before an @, such as *@example.com",
    ),
    ({"rules": [{"otherNames": [{"oid": "1.03", "utf8Value": "a"}]}]}, "spec.policy.rules[0].otherNames[0].oid", "pattern"),
    ({"rules": [{"otherNames": [{"oid": "1.3", "value": "a"}]}]}, "spec.policy.rules[0].otherNames[0].utf8Value", "required"),
    ({"rules": [{"otherNames": [{"oid": "1.3", "utf8Value": "a"}] * 65}]}, "spec.policy.rules[0].otherNames", "64"),
    *(
        (
            {"rules": [{"subject": {one: "a", several: ["b"]}}]},
            "spec.policy.rules[0].subject",
            f"put all patterns into {several}, and leave",
        )
        for one, several in (
            ("organization", "organizations"),
            ("organizationalUnit", "organizationalUnits"),
            ("domainComponent", "domainComponents"),
        )
    ),
    ({"rules": [{"subject": {"organizations": []}}]}, "spec.policy.rules[0].subject.organizations", "at least 1"),
    ({"rules": [{"subject": {"organizations": ["a", "{o}"]}}]}, "spec.policy.rules[0].subject.organizations[1]", "{o} is unknown"),
    ({"rules": [{"subject": {"domainComponents": ["a"] * 65}}]}, "spec.policy.rules[0].subject.domainComponents", "64"),
    ({"rules": [{"subject": {"commonNames": ["a"]}}]}, "spec.policy.rules[0].subject.commonNames", "unknown"),
    ({"rules": [{"subject": {"commonName": "{cn}"}}]}, "spec.policy.rules[0].subject.commonName", "{cn} is unknown"),
    ({"rules": [{"subject": {"title": "x"}}]}, "spec.policy.rules[0].subject.title", "unknown"),
    ({"rules": [{"wildcards": "yes"}]}, "spec.policy.rules[0].wildcards", "boolean"),
    ({"rules": [{}] * 65}, "spec.policy.rules", "64"),
]


@pytest.mark.parametrize(
    ("spec", "field", "said"),
    [*MISTAKES, *(({"ca": CA, "policy": policy}, field, said) for policy, field, said in POLICY_MISTAKES)],
)
def test_a_mistake_is_named_by_object_field_and_what_to_write(spec: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        issuer_spec.parse(spec, where="EstIssuer devices/factory")
    assert str(raised.value).startswith(f"EstIssuer devices/factory: {field}: ")
    assert said in str(raised.value)
    assert raised.value.field == field
    assert raised.value.reason == "InvalidSpec"
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("2160h", timedelta(hours=2160)),
        ("1h30m", timedelta(minutes=90)),
        ("2160h0m0s", timedelta(hours=2160)),
        ("45s", timedelta(seconds=45)),
    ],
)
def test_durations_are_written_as_kubernetes_writes_them(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "0s", "-1h", "1d", "1.5h", "h", "1h ", "1" * 33 + "h", "9999999h", None, 5])
def test_other_durations_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_usage_names_of_both_kubernetes_apis_are_read() -> None:
    assert parse_usage_names(["signing", "digital signature", "s/mime", "server auth"]) == {
        Usage.DIGITAL_SIGNATURE,
        Usage.EMAIL_PROTECTION,
        Usage.SERVER_AUTH,
    }
    assert parse_usage_names([]) == frozenset()


@pytest.mark.spec("THREAT-01", "THREAT-02")
@pytest.mark.parametrize("name", ["cert sign", "crl sign", "any", "ocsp signing", "encipher only", "decipher only", "microsoft sgc"])
def test_usages_that_no_end_entity_has_are_refused_by_name(name: str) -> None:
    with pytest.raises(Forbidden, match=f"'{name}' is never given") as raised:
        parse_usage_names(["digital signature", name])
    assert raised.value.reason == "UsageNotPermitted"


def test_an_unknown_usage_is_refused_with_those_there_are() -> None:
    with pytest.raises(Forbidden, match="'sign' is not one of digital signature,"):
        parse_usage_names(["sign"])


KEYGEN = {"enabled": True, "wrappingKeys": {"secretName": "wrapping"}}


@pytest.mark.spec("EST-SKG-01", "EST-SKG-07")
def test_server_key_generation_is_off_and_encrypted_by_default() -> None:
    off = issuer_spec.parse({"ca": CA}, where="test").est.server_key_generation
    assert not off.enabled
    on = issuer_spec.parse({"ca": CA, "est": {"serverKeyGeneration": KEYGEN}}, where="test").est.server_key_generation
    assert (on.encryption, on.key_algorithm) == ("Required", KeyAlgorithm.ECDSA_P256)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"est": {"serverKeyGeneration": {"enabled": True}}}, "encryption: Required needs wrappingKeys"),
        ({"est": {"serverKeyGeneration": KEYGEN}, "policy": {"keys": ["RSA-2048"]}}, "policy.keys has no ECDSA-P256"),
        ({"est": {"serverKeyGeneration": KEYGEN}, "signer": {"exec": {"command": ["sign"]}}}, "signed for by the CA's own key"),
    ],
)
def test_server_key_generation_that_could_never_answer_is_refused(spec: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        issuer_spec.parse({"ca": CA, **spec}, where="test")


def test_what_is_off_is_not_held_against_the_rest() -> None:
    issuer_spec.parse({"ca": CA, "est": {"serverKeyGeneration": {"enabled": False}}, "policy": {"keys": ["RSA-2048"]}}, where="test")
