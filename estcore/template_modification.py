"""What a registration authority changes in the certification requests that it sends on.

RFC 5272 section 6.5: modCertTemplate replaces or removes fields, extensions one by one; addExtensions, its deprecated predecessor, only
adds. Layers are applied from the innermost outwards, so that the outermost wins; two controls of one PKIData never touch the same field
of a request. Whether the signer of that layer is a registration authority is asked elsewhere, before.

A BodyPartPath begins at the outermost PKIData: `(5, 1)` is request 1 of the message that is body part 5.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any, Final

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from estcore import cert_template, extension_request
from estcore.cert_template import CertTemplate
from estcore.certification_request import CertificationRequest
from estcore.cmc_status import BodyPartPath, failure_of
from estcore.der import SEQUENCE, integer, tlv
from estcore.der_reader import BOOLEAN, Reader, only
from estcore.errors import CmcFailed, CmcFailInfo, EstError
from estcore.usages import KEY_USAGES, Usage

MAX_REFERENCES: Final = 100
MAX_LAYERS: Final = 8
_NO_NAME = x509.Name([])
_NO_NAME_DER = b"\x30\x00"
_CA_BITS = ("key_cert_sign", "crl_sign")


class Change(Enum):
    """What happens to the fields of the template."""

    REPLACE = "replace"
    REMOVE = "remove"
    ADD = "add"


@dataclass(frozen=True, slots=True, kw_only=True)
class Modification:
    """A modCertTemplate or addExtensions control: which requests, relative to the PKIData that it stands in, and what of them."""

    change: Change
    pki_data: BodyPartPath
    """The nested message that holds the requests; empty for the PKIData of the control itself."""
    requests: tuple[int, ...]
    template: CertTemplate


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A modification and where its control stands: the path of its PKIData, empty for the outermost, and its own bodyPartID."""

    layer: BodyPartPath
    body_part_id: int
    modification: Modification

    @property
    def path(self) -> BodyPartPath:
        """Of the control, for the bodyList of a failure."""
        return (*self.layer, self.body_part_id)


def parse_mod_cert_template(value_der: bytes) -> Modification:
    """Parse the DER value of an id-cmc-modCertTemplate control. Raises MalformedBody, BadCsr, CmcFailed (badRequest)."""
    what = "the modCertTemplate"
    fields = only(value_der, what=what)
    pki_data = _pki_data(_body_part_ids(fields.inside(SEQUENCE), what=f"the pkiDataReference of {what}"))
    requests = _body_part_ids(fields.inside(SEQUENCE), what=f"the certReferences of {what}")
    # replace BOOLEAN DEFAULT TRUE: DER leaves TRUE out, and not everybody does.
    change = Change.REMOVE if fields.next_is(BOOLEAN) and not fields.boolean() else Change.REPLACE
    template = cert_template.read(fields.inside(SEQUENCE, what="the certTemplate"), what=what)
    fields.close()
    if template.spki_der is not None:
        raise _bad("a modCertTemplate cannot change the public key, whose possession was proven for the request as it is")
    if template.issuer is not None:
        raise _bad("a modCertTemplate cannot change the issuer; send the request to that CA")
    return Modification(change=change, pki_data=pki_data, requests=requests, template=template)


def parse_add_extensions(value_der: bytes) -> Modification:
    """Parse the DER value of an id-cmc-addExtensions control. Raises MalformedBody, CmcFailed (badRequest)."""
    what = "the addExtensions"
    fields = only(value_der, what=what)
    pki_data = _pki_data((fields.integer(),))
    requests = _body_part_ids(fields.inside(SEQUENCE), what=f"the certReferences of {what}")
    template = CertTemplate(extensions_der=fields.whole(SEQUENCE))
    fields.close()
    return Modification(change=Change.ADD, pki_data=pki_data, requests=requests, template=template)


def _body_part_ids(values: Reader, *, what: str) -> tuple[int, ...]:
    ids = []
    for _ in range(MAX_REFERENCES):
        if values.at_end:
            break
        ids.append(values.integer())
    if not ids or not values.at_end or len(set(ids)) != len(ids) or not all(0 <= each <= 0xFFFFFFFF for each in ids):
        raise _bad(f"{what} is not a list of 1 to {MAX_REFERENCES} different bodyPartIDs (RFC 5272 section 3.2.2)")
    return tuple(ids)


def _pki_data(path: BodyPartPath) -> BodyPartPath:
    """RFC 5272 section 3.2.2: 0 is the current PKIData, and so the empty path."""
    if path == (0,):
        return ()
    if 0 in path or len(path) > MAX_LAYERS:
        raise _bad(f"a pkiDataReference is 0, or a path of at most {MAX_LAYERS} bodyPartIDs of messages (RFC 5272 section 6.5.1)")
    return path


def _bad(message: str) -> CmcFailed:
    return CmcFailed(message, fail_info=CmcFailInfo.BAD_REQUEST, reason="UnsupportedTemplate")


def apply_all(
    requests: Mapping[BodyPartPath, CertificationRequest], controls: Iterable[Placed], *, now: datetime
) -> dict[BodyPartPath, CertificationRequest]:
    """The requests as the registration authorities want them, by the same paths.

    `now` is aware UTC: a validity is turned into a life. Raises CmcFailed with the control in `body_parts`: badRequest for an unknown
    reference, for two controls of one PKIData that touch the same field, and for what cannot be honoured; unsupportedExt for an extension
    that is not issued.
    """
    changed = dict(requests)
    touched: dict[tuple[BodyPartPath, BodyPartPath, str], Placed] = {}
    for control in sorted(controls, key=lambda each: -len(each.layer)):
        modification = control.modification
        try:
            for body_part_id in modification.requests:
                target = (*control.layer, *modification.pki_data, body_part_id)
                request = changed.get(target)
                if request is None:
                    raise _bad(f"a control refers to certification request {body_part_id}, which is not there")
                for field in _fields(modification.template):
                    other = touched.setdefault((control.layer, target, field), control)
                    if other is not control:
                        raise _conflict(field, other, control, body_part_id)
                changed[target] = apply(request, modification, now=now)
        except EstError as error:
            raise failure_of(error).about(control.path) from error
    return changed


def _conflict(field: str, one: Placed, other: Placed, body_part_id: int) -> CmcFailed:
    return _bad(f"two controls of one PKIData change the {field} of certification request {body_part_id}").about(one.path, other.path)


def _fields(template: CertTemplate) -> list[str]:
    fields = [name for name in ("validity", "subject") if getattr(template, name) is not None]
    return [*fields, *(f"extension {oid}" for oid in _extension_oids(template))]


def _extension_oids(template: CertTemplate) -> list[str]:
    """Dotted; the values are not read, for those of a removal may be anything."""
    if template.extensions_der is None:
        return []
    extensions = only(template.extensions_der, what="the extensions").each(SEQUENCE, at_most=extension_request.MAX_EXTENSIONS)
    oids = [only(extension, what="an extension").oid() for extension in extensions]
    if len(set(oids)) != len(oids):
        raise _bad("a template has the same extension twice")
    return oids


def apply(request: CertificationRequest, modification: Modification, *, now: datetime) -> CertificationRequest:
    """One change to one request. Raises CmcFailed (badRequest, unsupportedExt), BadCsr."""
    template = modification.template
    if modification.change is Change.REMOVE:
        return _removed(request, template)
    changes: dict[str, Any] = {}  # members of CertificationRequest
    if template.subject is not None and template.subject_der is not None:
        changes = {"subject": template.subject, "subject_der": template.subject_der}
    if template.validity is not None:
        changes |= cert_template.life_asked(template.validity, now=now)
    if template.extensions_der is not None:
        extensions = cert_template.load_extensions(template.extensions_der, spki_der=request.spki_der)
        if modification.change is Change.ADD:
            _check_absent(request, extensions)
        changes |= _replaced_by(extensions, request)
    return replace(request, **changes)


def _removed(request: CertificationRequest, template: CertTemplate) -> CertificationRequest:
    if template.subject is not None:
        request = replace(request, subject=_NO_NAME, subject_der=_NO_NAME_DER)
    if template.validity is not None:
        request = replace(request, duration=None, ends_at=None)
    for oid in _extension_oids(template):
        match oid:
            case "2.5.29.17":
                request = replace(request, sans=())
            case "2.5.29.15":
                request = replace(request, usages=_without(request.usages, KEY_USAGES))
            case "2.5.29.37":
                request = replace(request, usages=_without(request.usages, frozenset(Usage) - KEY_USAGES), cmc_ra=False)
            case "2.5.29.19":
                request = replace(request, ca=False)
            case "2.5.29.14":
                request = replace(request, subject_key_identifier=None)
            case _:
                pass  # No request that was parsed has any other: there is nothing to remove.
    return request


def _without(usages: frozenset[Usage] | None, gone: frozenset[Usage]) -> frozenset[Usage] | None:
    return (usages - gone or None) if usages is not None else None


def _replaced_by(extensions: x509.Extensions, request: CertificationRequest) -> dict[str, Any]:
    """The members of the request that these extensions change: each replaces what the request had in its place."""
    changes: dict[str, Any] = {}
    usages = request.usages
    ca = next((each.value for each in extensions if isinstance(each.value, x509.BasicConstraints)), None)
    if ca is not None:
        if ca.path_length not in (None, 0):
            raise _bad("a subordinate CA of this issuer has the pathLenConstraint 0; ask for that, or leave it out")
        changes["ca"] = ca.ca
    wanted: list[x509.Extension[x509.ExtensionType]] = []
    for extension in extensions:
        value: x509.ExtensionType | None = extension.value
        if isinstance(value, x509.KeyUsage):
            usages = _without(usages, KEY_USAGES)
            value = _without_ca_bits(value) if changes.get("ca", request.ca) else value
        elif isinstance(value, x509.ExtendedKeyUsage):
            usages = _without(usages, frozenset(Usage) - KEY_USAGES)
            changes["cmc_ra"] = False
        if value is not None and not isinstance(value, x509.BasicConstraints):
            wanted.append(x509.Extension(extension.oid, extension.critical, value))
    requested = extension_request.read(x509.Extensions(wanted), request.public_key)
    if requested.cmc_ra:
        raise _bad("a template cannot ask for the extended key usage cmcRA: it is given to a registration authority for its own key only")
    changes["usages"] = usages if requested.usages is None else requested.usages | (usages or frozenset())
    if requested.subject_key_identifier is not None:
        changes["subject_key_identifier"] = requested.subject_key_identifier
    if requested.sans:
        changes["sans"] = requested.sans
    return changes


def _without_ca_bits(usage: x509.KeyUsage) -> x509.KeyUsage | None:
    """KeyCertSign and cRLSign are what every CA certificate has; None where nothing else is asked for."""
    bits = {name: getattr(usage, name) for name in ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")}
    agreement = {"key_agreement": usage.key_agreement}
    only_bits = {f"{name}_only": usage.key_agreement and getattr(usage, f"{name}_only") for name in ("encipher", "decipher")}
    if not any((*bits.values(), *agreement.values(), *only_bits.values())):
        return None
    return x509.KeyUsage(**bits, **agreement, **only_bits, **dict.fromkeys(_CA_BITS, False))


def _check_absent(request: CertificationRequest, extensions: x509.Extensions) -> None:
    """AddExtensions adds: what the request has already, it cannot change."""
    usages = request.usages or frozenset()
    present = {
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME: bool(request.sans),
        ExtensionOID.KEY_USAGE: bool(usages & KEY_USAGES),
        ExtensionOID.EXTENDED_KEY_USAGE: bool(usages - KEY_USAGES) or request.cmc_ra,
        ExtensionOID.BASIC_CONSTRAINTS: request.ca,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER: request.subject_key_identifier is not None,
    }
    for extension in extensions:
        if present.get(extension.oid):
            raise _bad(f"addExtensions adds {extension.oid.dotted_string}, which the request has; modCertTemplate can replace it")


def build_mod_cert_template(template_der: bytes, *, requests: Sequence[int], pki_data: Sequence[int] = (0,), remove: bool = False) -> bytes:
    """The DER value of an id-cmc-modCertTemplate control for the requests with these bodyPartIDs; `pki_data` is (0,) or a path."""
    references = tlv(SEQUENCE, b"".join(map(integer, pki_data))) + tlv(SEQUENCE, b"".join(map(integer, requests)))
    return tlv(SEQUENCE, references + (b"\x01\x01\x00" if remove else b"") + template_der)
