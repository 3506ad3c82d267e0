"""Requesters, policies and CSRs for the tests of registration, profile and authority."""

import functools
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from estcore import authority, issuer_spec, pkcs10, registration
from estcore.authority import Authority
from estcore.certification_request import CertificationRequest
from estcore.errors import BadCsr, EstError, Forbidden
from estcore.issuer_spec import Generate, KeyAlgorithm, Policy
from estcore.requester import AuthenticatedBy, Door, Requester
from estcore.usages import Usage
from tests import pki
from tests.collect import collect

DNS, URI, EMAIL = x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name

RA = Requester(
    authenticated_by=AuthenticatedBy.SERVICE_ACCOUNT_TOKEN,
    identity="est-issuer/operator",
    namespace="est-issuer",
    service_account="operator",
    registration_authority=True,
)


def basic(user: str = "device-1", **others: Any) -> Requester:
    return Requester(authenticated_by=AuthenticatedBy.BASIC, identity=user, user=user, **others)


def pod(namespace: str = "shop", service_account: str = "web", **others: Any) -> Requester:
    return Requester(
        authenticated_by=AuthenticatedBy.SERVICE_ACCOUNT_TOKEN,
        identity=f"{namespace}/{service_account}",
        namespace=namespace,
        service_account=service_account,
        **others,
    )


def cluster(namespace: str = "shop") -> Requester:
    return Requester(authenticated_by=AuthenticatedBy.KUBERNETES, identity=namespace, namespace=namespace, door=Door.CERT_MANAGER)


def holder(certificate: x509.Certificate, *, by: AuthenticatedBy = AuthenticatedBy.CERTIFICATE) -> Requester:
    return Requester(authenticated_by=by, identity=f"{certificate.serial_number:x}", certificate=certificate)


def spec(*rules: Mapping[str, Any], **policy: Any) -> dict[str, Any]:
    """An issuer's spec as YAML would give it."""
    return {"ca": {"secretName": "ca"}, "policy": {"rules": list(rules), **policy}}


def policy(*rules: Mapping[str, Any], **others: Any) -> Policy:
    return issuer_spec.parse(spec(*rules, **others), where="test").policy


@functools.cache
def _parsed(algorithm: KeyAlgorithm) -> CertificationRequest:
    return pkcs10.parse(pki.csr(pki.key(algorithm)))


def csr(
    *sans: x509.GeneralName,
    subject: x509.Name | None = None,
    algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256,
    usages: Sequence[Usage] | None = None,
) -> CertificationRequest:
    """A parsed CSR. The names are put in after parsing, so that ones which `pkcs10.parse` refuses can be tried too."""
    return replace(
        _parsed(algorithm),
        subject=subject if subject is not None else x509.Name([]),
        sans=tuple(sans),
        usages=None if usages is None else frozenset(usages),
    )


CA_SERIAL = authority.serial_number(bytes(range(16)))


@functools.cache
def made_ca(algorithm: KeyAlgorithm, *, life: timedelta = timedelta(hours=87600)) -> Authority:
    """A CA as the product makes it: one for each algorithm and life, for a key of RSA takes up to seconds."""
    key_pem, certificate_pem = authority.generate_ca(
        Generate(common_name="Factory CA", key_algorithm=algorithm, duration=life), now=pki.EPOCH, serial=CA_SERIAL
    )
    ca = authority.load(certificate_chain_pem=certificate_pem, private_key_pem=key_pem, root_pem=None, now=pki.EPOCH, where="test")
    collect(pki.der(ca.certificate))
    return ca


def ip(text: str) -> x509.IPAddress:
    return x509.IPAddress(ipaddress.ip_address(text))


def refusal(requester: Requester, rules: Policy, *sans: x509.GeneralName, subject: x509.Name | None = None) -> EstError:
    """What authorize says to these names."""
    with pytest.raises((Forbidden, BadCsr)) as raised:
        registration.authorize(requester, csr(*sans, subject=subject), rules)
    assert "\n" not in raised.value.message
    return raised.value


SHOP = policy(
    {
        "from": {"namespaces": ["*"]},
        "dnsNames": ["*.{namespace}.svc", "*.{namespace}.svc.cluster.local", "*.apps.example.com"],
        "uris": ["spiffe://cluster.local/ns/{namespace}/sa/*"],
        "ipAddresses": ["10.0.0.0/8", "2001:db8::1"],
        "emailAddresses": ["*@example.com"],
    }
)
"""A policy for pods and Kubernetes requests."""

FACTORY = policy(
    {
        "from": {"authentication": "basic", "users": ["device-*"]},
        "subject": {"commonName": "{user}", "organization": "Acme *", "country": "DE"},
    }
)
"""A policy for devices with passwords."""
