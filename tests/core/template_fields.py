"""The fields of a CertTemplate beside its extensions, as helpers of tests pass them on to `estcore.cert_template.build`."""

from datetime import datetime
from typing import TypedDict

from cryptography import x509


class TemplateFields(TypedDict, total=False):
    """Those that are left out, or None, are not in the template."""

    subject: x509.Name
    spki_der: bytes
    not_before: datetime | None
    not_after: datetime | None
