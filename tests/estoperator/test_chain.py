from datetime import timedelta

import pytest
from cryptography import x509

from estcore.errors import ConfigurationError, MalformedResponse
from estoperator import chain
from tests import pki
from tests.estoperator.builders import NOW

ROOT = pki.ca("Chain Root")
MIDDLE = pki.ca("Chain Middle", issuer=ROOT)
ISSUING = pki.ca("Chain Issuing", issuer=MIDDLE)
SPKI = pki.spki_der(pki.key().public_key())


def pem(*authorities: pki.Ca) -> bytes:
    return pki.pem(*(authority.certificate for authority in authorities))


@pytest.mark.parametrize(
    ("bundle", "above", "ca"),
    [
        pytest.param(pem(ISSUING, MIDDLE, ROOT), pem(ISSUING, MIDDLE), ROOT, id="the-root-is-ca-and-not-in-the-chain"),
        pytest.param(pem(ROOT, MIDDLE, ISSUING), pem(ISSUING, MIDDLE), ROOT, id="the-order-of-the-bundle-does-not-matter"),
        pytest.param(pem(ISSUING, MIDDLE), pem(ISSUING, MIDDLE), MIDDLE, id="without-a-root-the-top-is-ca"),
        pytest.param(pem(ISSUING), pem(ISSUING), ISSUING, id="alone"),
        pytest.param(pem(ISSUING, ISSUING, MIDDLE, MIDDLE, ROOT), pem(ISSUING, MIDDLE), ROOT, id="no-certificate-twice"),
    ],
)
@pytest.mark.spec("K8S-CONTRACT-17", "K8S-CONTRACT-18")
def test_the_chain_is_leaf_first_up_to_the_highest_that_is_not_self_signed(bundle: bytes, above: bytes, ca: pki.Ca) -> None:
    leaf = pki.leaf(ISSUING)
    assert chain.deliver(leaf, spki_der=SPKI, known=chain.chains(bundle), now=NOW) == (pki.pem(leaf) + above, ca.pem)


@pytest.mark.spec("K8S-CONTRACT-17")
def test_a_leaf_of_a_self_signed_ca_stands_alone() -> None:
    leaf = pki.leaf(ROOT)
    assert chain.deliver(leaf, spki_der=SPKI, known=chain.chains(ROOT.pem), now=NOW) == (pki.pem(leaf), ROOT.pem)


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        pytest.param(pki.leaf(ISSUING, public_key=pki.key(owner="other").public_key()), "another key", id="another-key"),
        pytest.param(pki.leaf(ISSUING, not_after=NOW - timedelta(seconds=1)), "expired", id="expired"),
        pytest.param(pki.leaf(pki.ca("Stranger")), "none of the issuer's CA certificates", id="another-ca"),
        pytest.param(pki.leaf(ISSUING, signed_by=pki.key(owner="forger")), "none of the issuer's CA certificates", id="forged"),
    ],
)
@pytest.mark.spec("K8S-CONTRACT-19")
def test_what_cert_manager_would_refuse_is_not_written(leaf: x509.Certificate, message: str) -> None:
    with pytest.raises(MalformedResponse, match=message):
        chain.deliver(leaf, spki_der=SPKI, known=chain.chains(pem(ISSUING, MIDDLE, ROOT)), now=NOW)


@pytest.mark.spec("THREAT-28")
def test_while_the_ca_key_rolls_over_each_leaf_gets_its_own_issuers_chain() -> None:
    old, new = pki.ca("Rolling", private_key=pki.key(owner="old")), pki.ca("Rolling", private_key=pki.key(owner="new"))
    known = chain.chains(pem(new, old))
    for authority in (old, new):
        assert chain.deliver(pki.leaf(authority), spki_der=SPKI, known=known, now=NOW)[1] == authority.pem


def test_a_bundle_without_certificates_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        chain.chains(b"hello")
