"""Controls, requests and PKIData for the tests of CMC."""

from datetime import UTC, datetime

from estcore import cmc_controls as controls
from estcore import ra_witness, template_modification
from estcore.cmc_controls import Control
from estcore.cmc_status import CmcStatus, PendInfo, StatusInfo
from estcore.errors import CmcFailInfo
from tests import pki

SHA_256 = pki.sequence(pki.oid("2.16.840.1.101.3.4.2.1"))
HMAC_SHA_256 = pki.sequence(pki.oid("1.2.840.113549.2.9"))
NAME = pki.name("Factory CA").public_bytes()
MOMENT = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
CONTENT_INFO = pki.sequence(pki.oid("1.2.840.113549.1.7.1"), pki.tlv(0xA0, pki.tlv(4, b"data")))

EVERY_CONTROL: dict[int, Control] = {
    2: controls.Identification("device-1"),
    3: controls.IdentityProof(pki.tlv(4, bytes(20))),
    4: controls.DataReturn(b"give it back"),
    5: controls.TransactionId(0x1234),
    6: controls.SenderNonce(bytes(16)),
    7: controls.RecipientNonce(bytes(16)),
    8: controls.AddExtensions(bytes.fromhex("300a0201003003020101") + pki.sequence()),
    9: controls.EncryptedPop(
        pki.sequence(pki.tlv(0xA0, pki.tlv(2, b"\x01"), pki.sequence()), CONTENT_INFO, HMAC_SHA_256, SHA_256, pki.tlv(4, bytes(32)))
    ),
    10: controls.DecryptedPop(pki.sequence(pki.tlv(2, b"\x01"), HMAC_SHA_256, pki.tlv(4, bytes(32)))),
    11: controls.LraPopWitness(ra_witness.build_pop_witness(1, 2)),
    15: controls.GetCert(pki.tlv(0xA4, NAME), 77),
    16: controls.GetCrl(NAME, None, MOMENT, pki.tlv(3, b"\x01\x80")),
    17: controls.RevokeRequest(NAME, 77, 1, MOMENT, b"passphrase", "lost"),
    18: controls.RegInfo(b"{}"),
    19: controls.ResponseInfo(b"{}"),
    21: controls.QueryPending(b"token"),
    22: controls.PopLinkRandom(bytes(64)),
    24: controls.ConfirmCertAcceptance(NAME, 77),
    25: controls.Status(StatusInfo(status=CmcStatus.FAILED, body_parts=((0,), (1, 2)), text="no", fail_info=CmcFailInfo.BAD_REQUEST)),
    26: controls.PublishTrustAnchors(3, SHA_256, (bytes(32), bytes(32))),
    27: controls.AuthData(4),
    28: controls.BatchRequests((1, 2)),
    29: controls.BatchResponses((1, 2)),
    30: controls.PublishCert(pki.sequence(SHA_256, pki.sequence(), pki.sequence(pki.tlv(2, b"\x01")))),
    31: controls.ModCertTemplate(template_modification.build_mod_cert_template(pki.sequence(), requests=[1])),
    32: controls.ControlProcessed(((1,), (2, 3))),
    34: controls.IdentityProofV2(pki.sequence(SHA_256, HMAC_SHA_256, pki.tlv(4, bytes(32)))),
    35: controls.RaIdentityWitness((1, 2)),
    37: controls.ResponseBody((1,)),
}
"""One of each control of est-conformance table 1.3 that stands in a controlSequence, by its number under id-cmc."""

PENDING = StatusInfo(status=CmcStatus.PENDING, body_parts=((1,),), pend_info=PendInfo(token=b"token", time=MOMENT))
