"""From an opened Full PKI Request to certification requests as they are to be judged: parsed, proven, and changed by whoever may.

RFC 5272 sections 3.2.1 and 6.5 to 6.8. Pure and the same for a message that came alone and for one that a registration authority wrapped:
a `Layer` is one PKIData at its path, with the instructions that its signer was found to be allowed to give.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from cryptography import x509

from estcore import cert_template, crmf, pkcs10, pop_challenge, ra_witness, template_modification
from estcore import cmc_controls as controls
from estcore.certification_request import CertificationRequest
from estcore.cmc_status import BodyPartPath, CmcNotSupported, failure_of
from estcore.errors import CmcFailed, CmcFailInfo, EstError
from estcore.instructions import Instructions
from estcore.names import same_name
from estcore.pki_data import CrmfRequest, OtherRequest, Pkcs10Request, PkiData, TaggedRequest
from estcore.template_modification import Placed

Requests = dict[BodyPartPath, CertificationRequest]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One PKIData: where it stands (the empty path is the outermost), and what its controls say."""

    path: BodyPartPath
    body: PkiData
    instructions: Instructions

    @property
    def nested(self) -> frozenset[int]:
        """The numbers of the members of cmsSequence that a control refers to; asked for nothing where there can be none."""
        if not self.body.contents and self.instructions.one(controls.BatchRequests) is None:
            return frozenset()
        return self.instructions.nested


def read_requests(body: PkiData, *, path: BodyPartPath = (), ca_name: x509.Name, now: datetime) -> Requests:
    """Parse the certification requests of a PKIData, by their paths. `ca_name` is whom they may name as issuer; `now` is aware, UTC.

    Raises CmcNotSupported for a form of request that is unknown, before any other is looked at (RFC 5272 section 3.2.1); CmcFailed for
    the first one that is not acceptable.
    """
    unknown = [(*path, each.body_part_id) for each in body.requests if isinstance(each, OtherRequest)]
    if unknown:
        raise CmcNotSupported(
            "a certification request of another form than PKCS#10 and CRMF is not supported; nothing was issued", body_parts=unknown
        )
    requests: Requests = {}
    for tagged in body.requests:
        here = (*path, tagged.body_part_id)
        try:
            requests[here] = _read_request(tagged, ca_name=ca_name, now=now)
        except EstError as error:
            raise failure_of(error).about(here) from error
    return requests


def _read_request(tagged: TaggedRequest, *, ca_name: x509.Name, now: datetime) -> CertificationRequest:
    match tagged:
        case Pkcs10Request():
            return pkcs10.parse(tagged.csr_der, accept_no_signature=True, accept_ca=True)
        case CrmfRequest():
            message = crmf.parse(tagged.cert_req_msg_der, now=now)
            issuer = message.template.issuer
            cert_template.check_issuer(message.template, same=issuer is not None and same_name(issuer, ca_name))
            return message.request
        case OtherRequest():
            raise CmcNotSupported("this form of request is not supported")


def changed(
    requests: Mapping[BodyPartPath, CertificationRequest], layer: Layer, *, now: datetime, moot: Collection[BodyPartPath] = ()
) -> Requests:
    """The requests with what the registration authority of a layer asserts of them and changes in them.

    What it says of the messages at the paths of `moot`, which failed for their own sake, is passed over. Layers are taken from the
    innermost outwards, one call each. Raises CmcFailed with the path of the control at fault.
    """
    proven = _witnessed(requests, layer, moot)
    seen = {path: replace(request, proven=True) if path in proven else request for path, request in requests.items()}
    modifications = [each for each in _modifications(layer) if (*layer.path, *each.modification.pki_data) not in moot]
    try:
        return template_modification.apply_all(seen, modifications, now=now) if modifications else seen
    except CmcFailed:
        raise
    except EstError as error:
        raise failure_of(error).about(*(modification.path for modification in modifications)) from error


def _witnessed(
    requests: Mapping[BodyPartPath, CertificationRequest], layer: Layer, moot: Collection[BodyPartPath]
) -> frozenset[BodyPartPath]:
    found: frozenset[BodyPartPath] = frozenset()
    for number, value in layer.instructions.each(controls.LraPopWitness):
        if (*layer.path, ra_witness.parse_pop_witness(value.value_der)[0]) in moot:
            continue
        # That its sender may say so was found when the instructions were read.
        found |= ra_witness.witnessed(value.value_der, layer=layer.path, body_part_id=number, requests=requests.keys(), authorized=True)
    return found


def _modifications(layer: Layer) -> Iterable[Placed]:
    for number, value in layer.instructions.values:
        try:
            if isinstance(value, controls.ModCertTemplate):
                modification = template_modification.parse_mod_cert_template(value.value_der)
            elif isinstance(value, controls.AddExtensions):
                modification = template_modification.parse_add_extensions(value.value_der)
            else:
                continue
        except EstError as error:
            raise failure_of(error).about((*layer.path, number)) from error
        yield Placed(layer=layer.path, body_part_id=number, modification=modification)


def answered(requests: Mapping[BodyPartPath, CertificationRequest], layer: Layer, *, server_key: bytes, recipient: bytes) -> Requests:
    """The requests with those proven whose decryptedPOP answers our challenge (RFC 5272 section 6.7); all are of this layer.

    `server_key` and `recipient` are as `pop_challenge.proof_value` takes them. Raises CmcFailed (popFailed, badRequest).
    """
    tagged = {each.body_part_id: each.tagged_der for each in layer.body.requests}
    proven = dict(requests)
    for number, value in layer.instructions.each(controls.DecryptedPop):
        try:
            answer = pop_challenge.parse_decrypted_pop(value.value_der)
            target = (*layer.path, answer.body_part_id)
            if target not in proven:
                raise CmcFailed(
                    f"the decryptedPOP is for certification request {answer.body_part_id}, which is not there",
                    fail_info=CmcFailInfo.BAD_REQUEST,
                )
            y = pop_challenge.proof_value(tagged[answer.body_part_id], server_key=server_key, recipient=recipient)
            pop_challenge.verify(answer, tagged[answer.body_part_id], y=y)
        except EstError as error:
            raise failure_of(error).about((*layer.path, number)) from error
        proven[target] = replace(proven[target], proven=True)
    return proven


def challenges(
    requests: Mapping[BodyPartPath, CertificationRequest],
    layer: Layer,
    *,
    server_key: bytes,
    recipient: bytes,
    random: Sequence[bytes],
) -> list[controls.EncryptedPop]:
    """An encryptedPOP for each request that is not proven; `random` is 48 fresh octets for each of the layer's requests.

    Raises CmcFailed (popFailed) with the path of a request whose key cannot decrypt.
    """
    found: list[controls.EncryptedPop] = []
    for tagged, octets in zip(layer.body.requests, random, strict=True):
        here = (*layer.path, tagged.body_part_id)
        if requests[here].proven:
            continue
        y = pop_challenge.proof_value(tagged.tagged_der, server_key=server_key, recipient=recipient)
        try:
            value_der = pop_challenge.build_challenge(
                requests[here], tagged.tagged_der, body_part_id=tagged.body_part_id, y=y, content_key=octets[:32], iv=octets[32:48]
            )
        except CmcFailed as failed:
            raise failed.about(here) from failed
        found.append(controls.EncryptedPop(value_der))
    return found
