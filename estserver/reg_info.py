"""What a registration authority says in id-cmc-regInfo of whom it asks for: JSON, kept with the certificate.

    {"door": "cert-manager.io", "namespace": "shop", "name": "web-1", "requester": "system:serviceaccount:cert-manager:cert-manager"}

Octets by agreement (RFC 5272 section 6.12). The door of a Kubernetes object counts only together with the registration authority's token on
the same connection: a certificate with id-kp-cmcRA alone is some registration authority's, and those have the door "est".
"""

import json
from dataclasses import dataclass
from typing import Final

from estcore.cmc_controls import RegInfo
from estcore.errors import CmcFailed, CmcFailInfo, Forbidden
from estcore.requester import AuthenticatedBy, Door, Requester
from estserver.full_cmc_requester import Sender

MAX_OCTETS: Final = 4096
_MEMBERS: Final = frozenset({"door", "namespace", "name", "requester"})
_MAX_TEXT: Final = 1024
_DOORS: Final = frozenset(each.value for each in Door if each is not Door.EST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What was told. `on_behalf_of` is the JSON as it goes into the ledger; None where a registration authority said nothing."""

    on_behalf_of: str | None = None
    door: Door | None = None
    namespace: str | None = None
    user: str | None = None
    """Who made an object without a namespace."""

    def requester(self, signed: Requester) -> Requester:
        """Who the certificate is for: the Kubernetes object that was named, or whoever signed."""
        identity = self.namespace or self.user
        if self.door is None or identity is None:
            return signed
        return Requester(
            authenticated_by=AuthenticatedBy.KUBERNETES,
            identity=identity,
            door=self.door,
            namespace=self.namespace,
            registration_authority=True,
        )


def read(told: RegInfo | None, sender: Sender) -> Told:
    """Read the regInfo of the message that `sender` sent; of those who are no registration authority it means nothing.

    Raises CmcFailed (badRequest) where a registration authority's is not the JSON above, Forbidden for a door without its token.
    """
    requester = sender.requester
    if told is None or requester is None or not requester.registration_authority:
        return Told()
    members = _members(told.octets)
    text = json.dumps(members, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    if "door" not in members:
        return Told(on_behalf_of=text)
    door, namespace = members["door"], members.get("namespace")
    user = members.get("requester") if door == Door.SIGNING_REQUEST else None
    if door not in _DOORS or not (namespace or user):
        raise _wrong(
            f"regInfo: the door is one of {', '.join(sorted(_DOORS))}, with a namespace, or with the requester of a {Door.SIGNING_REQUEST}"
        )
    if not sender.token:
        raise Forbidden(
            "regInfo names a Kubernetes door, which counts only with the registration authority's token on the same connection",
            reason="DoorWithoutToken",
        )
    return Told(on_behalf_of=text, door=Door(door), namespace=namespace, user=user)


def _members(octets: bytes) -> dict[str, str]:
    if len(octets) > MAX_OCTETS:
        raise _wrong(f"regInfo has {len(octets)} octets, more than {MAX_OCTETS}")
    try:
        members = json.loads(octets.decode())
    except (ValueError, RecursionError) as error:
        raise _wrong("regInfo of a registration authority is JSON in UTF-8") from error
    if not isinstance(members, dict) or not members.keys() <= _MEMBERS:
        raise _wrong(f"regInfo is an object with the members {', '.join(sorted(_MEMBERS))}")
    if not all(isinstance(text, str) and 0 < len(text) <= _MAX_TEXT and text.isprintable() for text in members.values()):
        raise _wrong("the members of regInfo are texts of printable characters")
    return members


def _wrong(message: str) -> CmcFailed:
    return CmcFailed(message, fail_info=CmcFailInfo.BAD_REQUEST, reason="BadRegInfo")
