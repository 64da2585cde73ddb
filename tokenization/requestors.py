"""Token requestors and their permissions. A requestor has a TRID of 11 digits and one role."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import Final

from hutong_contract.errors import HutongError, Reason
from hutong_contract.names import GATEWAY_TRID, OPERATOR_TRID, WALLET_TRID
from tokenization.domain import Policy


class Role(enum.Enum):
    """What a requestor is."""

    WALLET = "wallet"
    """A wallet: requests tokens for its users, and manages those that it requested."""
    MERCHANT = "merchant"
    """A merchant that keeps tokens on file: as a wallet, without codes, faces and transit."""
    ISSUER = "issuer"
    """An issuer: everything about its own accounts' tokens."""
    GATEWAY = "gateway"
    """A payment gateway: resolves keys and nothing else."""
    OPERATOR = "operator"
    """Who runs the token service: keys, erasure, and the state of every token; never an account number."""


class Action(enum.Enum):
    """The actions that are permitted or refused; the value appears in refusals."""

    REQUEST = "request"
    SHOW = "show"
    CHANGE_STATE = "change_state"
    REPLACE = "replace"
    UPDATE_DOMAIN = "update_domain"
    CREATE_KEY = "create_key"
    RESERVE_CODE = "reserve_code"
    PROVISION = "provision"
    ISSUE_TRANSIT = "issue_transit"
    RESOLVE = "resolve"
    DETOKENIZE = "detokenize"
    ROTATE_KEYS = "rotate_keys"
    ERASE = "erase"
    OPERATE = "operate"
    """Run the gateway: settlement and risk rules."""


_MANAGE: Final = frozenset(
    {Action.REQUEST, Action.SHOW, Action.CHANGE_STATE, Action.REPLACE, Action.UPDATE_DOMAIN, Action.CREATE_KEY}
)
ALLOWED: Final = {
    Role.WALLET: _MANAGE | {Action.RESERVE_CODE, Action.PROVISION, Action.ISSUE_TRANSIT},
    Role.MERCHANT: _MANAGE,
    Role.ISSUER: _MANAGE | {Action.DETOKENIZE, Action.ERASE},
    Role.GATEWAY: frozenset({Action.RESOLVE}),
    Role.OPERATOR: frozenset(
        {Action.SHOW, Action.CHANGE_STATE, Action.RESOLVE, Action.ROTATE_KEYS, Action.ERASE, Action.OPERATE}
    ),
}
"""Each role's permitted actions."""

SCOPED_TO_ITS_TOKENS: Final = frozenset({Role.WALLET, Role.MERCHANT})
"""Roles that act only on tokens that name them."""


@dataclass(frozen=True, slots=True)
class Requestor:
    """One registered requestor."""

    trid: str
    name: str
    role: Role
    issuer_id: str = ""
    """Of the role ISSUER: whose accounts."""
    secret_mac: str = ""
    """MAC of its secret in hex; empty where the channel alone proves who calls."""

    def encode(self) -> bytes:
        """Canonical bytes for the vault."""
        fields = (self.trid, self.name, self.role.value, self.issuer_id, self.secret_mac)
        return json.dumps(fields, separators=(",", ":")).encode()

    @staticmethod
    def decode(data: bytes) -> Requestor:
        """Reads `encode`'s bytes."""
        trid, name, role, issuer_id, secret_mac = json.loads(data)
        return Requestor(trid, name, Role(role), issuer_id, secret_mac)


# A vault is born with three, so that one machine works with no set-up.
BUILT_IN: Final = (
    Requestor(OPERATOR_TRID, "operator", Role.OPERATOR),
    Requestor(WALLET_TRID, "wallet", Role.WALLET),
    Requestor(GATEWAY_TRID, "gateway", Role.GATEWAY),
)


def check_action(requestor: Requestor, action: Action, policy: Policy | None = None) -> None:
    """Whether a requestor may do something, to the token with this policy where there is one.

    Raises HutongError(REQUESTOR_NOT_ALLOWED).
    """
    allowed = action in ALLOWED[requestor.role]
    if allowed and policy is not None:
        if requestor.role in SCOPED_TO_ITS_TOKENS:
            allowed = not policy.requestors or requestor.trid in policy.requestors
        elif requestor.role is Role.ISSUER:
            allowed = policy.issuer_id == requestor.issuer_id
    if not allowed:
        raise HutongError(Reason.ERROR_REASON_REQUESTOR_NOT_ALLOWED, requestor_id=requestor.trid, action=action.value)
