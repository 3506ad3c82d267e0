"""Where CA keys are: the one interface between an issuer's manifest and the Authority that signs.

A Secret or a file holds the key today (both arrive as a SecretManifest). A key in a PKCS#11 token is another KeyStore: the Secret
then has the certificates and names the token.
"""

from datetime import datetime
from typing import Protocol

from estcore import authority
from estcore.authority import Authority
from estcore.errors import ConfigurationError
from estserver.secret_uses import SecretUse, check_fits
from estserver.snapshot import SecretManifest


class KeyStore(Protocol):
    """Opens the CA that a Secret describes."""

    def open(self, secret: SecretManifest, *, now: datetime, external: bool = False) -> Authority:
        """The Authority: parsed, key and certificate matching, self-signing tested, valid at `now`.

        `external` is a CA whose key is elsewhere: only its certificates are read.

        Raises ConfigurationError that names the Secret, the member and what to change.
        """


class SecretKeyStore:
    """Keys in kubernetes.io/tls Secrets.

    `tls.crt`: the issuing CA and then its chain; `tls.key`; `ca.crt`: the root, and `rollover.crt`: what is left of a key roll-over, which
    both may be absent. Source: the layout is cert-manager's for its CA issuer.
    """

    def open(self, secret: SecretManifest, *, now: datetime, external: bool = False) -> Authority:
        """As KeyStore.open; the type of the Secret must be kubernetes.io/tls."""
        where = f"Secret {secret.namespace}/{secret.name}"
        check_fits(secret, SecretUse.CA)
        for member in ("tls.crt",) if external else ("tls.crt", "tls.key"):
            if not secret.data.get(member, b"").strip():
                raise ConfigurationError("it is missing or empty", where=where, field=member, reason="SecretInvalidData")
        return authority.load(
            certificate_chain_pem=secret.data["tls.crt"],
            private_key_pem=None if external else secret.data["tls.key"],
            root_pem=secret.data.get("ca.crt") or None,
            rollover_pem=secret.data.get("rollover.crt") or None,
            now=now,
            where=where,
        )
