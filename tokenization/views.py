"""What may be shown of tokens, keys and their history. Never a number."""

from __future__ import annotations

from dataclasses import dataclass

from tokenization.domain import Policy
from tokenization.key_kinds import KeyKind
from tokenization.lifecycle import State, state_at
from tokenization.records import AccountRow, KeyRow


@dataclass(frozen=True, slots=True)
class TokenView:
    """A token, without its number."""

    token_ref: bytes
    last_four: str
    par: str
    state: State
    policy: Policy
    created_us: int
    expires_us: int
    erased: bool


@dataclass(frozen=True, slots=True)
class KeyView:
    """A routing key, without its number."""

    key_ref: bytes
    kind: KeyKind
    state: State
    last_four: str
    assurance_method: str
    device_id: str
    policy: Policy
    created_us: int
    expires_us: int


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One change of one token or key."""

    sequence: int
    time_us: int
    token_ref: bytes
    key_ref: bytes
    """The key's reference; empty if the change was of the token."""
    kind: str
    requestor: str
    reason: str


def token_view(row: AccountRow, policy: Policy, now_us: int) -> TokenView:
    """What may be shown of an account's row."""
    return TokenView(
        row.ref, "" if row.erased else f"{row.last_four:04d}", row.par, state_at(row.state, row.expires_us, now_us),
        policy, row.created_us, row.expires_us, row.erased,
    )  # fmt: skip


def key_view(row: KeyRow, policy: Policy, now_us: int) -> KeyView:
    """What may be shown of a key's row."""
    numbered = any(row.sealed_number)
    return KeyView(
        row.ref, KeyKind(row.kind), state_at(row.state, row.expires_us, now_us),
        f"{row.last_four:04d}" if numbered else "", row.assurance_method, row.device_id, policy, row.created_us,
        row.expires_us,
    )  # fmt: skip
