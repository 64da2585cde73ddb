"""The vault in memory, as resolving needs it: columns for accounts, entries for keys, tables for codes and aliases.

Built from the vault's rows by the `apply_*` methods, which are called in the order of the rows: at start for all of
them, later for what this or another process committed since. A million accounts need about 200 MB: 73 bytes in columns
and one dictionary entry each. Numbers stay sealed in memory. A lookup uses 64 bits of a keyed MAC, and then compares
the full 16 bytes.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tokenization.domain import Policy
from tokenization.lifecycle import State
from tokenization.records import (
    PAR_BYTES,
    REF_BYTES,
    SEALED_TOKEN_BYTES,
    WRAPPED_BYTES,
    AccountRow,
    KeyRow,
    account_from,
    key_from,
)
from tokenization.requestors import Requestor

_HEAD: Final = np.dtype(
    [
        ("state", "u1"), ("erased", "u1"), ("last_four", ">u2"), ("created", ">i8"), ("expires", ">i8"),
        ("policy", ">u4"), ("par", f"V{PAR_BYTES}"), ("sealed", f"V{SEALED_TOKEN_BYTES}"), ("key", f"V{WRAPPED_BYTES}"),
    ]
)  # fmt: skip
CODE_MEMORY_US: Final = 600_000_000
"""How long an expired online code is remembered, so that it is refused as expired rather than unknown."""
ERASED: Final = 0
"""State byte of an erased account; not a value of lifecycle.State."""


@dataclass(slots=True)
class KeyEntry:
    """One routing key, ready to be resolved. Replaced as a whole when its row changes."""

    row: KeyRow
    slot: int
    policy: Policy


@dataclass(frozen=True, slots=True)
class CodeEntry:
    """One reserved online code."""

    lookup: bytes
    key: int
    expires_us: int


@dataclass(frozen=True, slots=True)
class AliasEntry:
    """One daily alias."""

    key: int
    day: int


def _short(mac: bytes) -> int:
    return int.from_bytes(mac[:8], "little")


class Index:
    """The vault in memory. Reads take no lock; `apply_*` are called by one thread at a time."""

    def __init__(self) -> None:
        self.policies: list[Policy] = [Policy()]
        """By policy id; ids begin at 1."""
        self.requestors: dict[str, Requestor] = {}
        self.refs = bytearray()
        self.sealed = bytearray()
        self.states = bytearray()
        self.last_fours = array("H")
        self.expiries = array("q")
        self.account_policies = array("I")
        self.versions = array("I")
        self.keys: dict[int, KeyEntry] = {}
        self.codes: dict[int, CodeEntry] = {}
        self.aliases: dict[int, AliasEntry] = {}
        self.last_event = 0
        self._slots: dict[int, int] = {}
        self._by_lookup: dict[int, int] = {}
        self._by_ref: dict[bytes, int] = {}
        self._by_account: dict[int, list[int]] = {}
        self._code_order: deque[tuple[int, int]] = deque()

    def __len__(self) -> int:
        return len(self.states)

    def slot_of(self, ref: bytes) -> int | None:
        """The slot of the account whose token has this reference. An account's id is its slot plus one."""
        slot = self._slots.get(_short(ref))
        if slot is None or self.refs[slot * REF_BYTES : slot * REF_BYTES + REF_BYTES] != ref[:REF_BYTES]:
            return None
        return slot

    def ref_at(self, slot: int) -> bytes:
        """The reference of an account's token."""
        return bytes(self.refs[slot * REF_BYTES : slot * REF_BYTES + REF_BYTES])

    def sealed_at(self, slot: int) -> bytes:
        """An account's sealed token."""
        return bytes(self.sealed[slot * SEALED_TOKEN_BYTES : (slot + 1) * SEALED_TOKEN_BYTES])

    def key_by_lookup(self, mac: bytes) -> KeyEntry | None:
        """The key with this lookup MAC."""
        entry = self.keys.get(self._by_lookup.get(_short(mac), 0))
        return entry if entry is not None and entry.row.lookup == mac[:REF_BYTES] else None

    def key_by_ref(self, ref: bytes) -> KeyEntry | None:
        """The key with this reference."""
        return self.keys.get(self._by_ref.get(ref, 0))

    def keys_of(self, slot: int) -> list[KeyEntry]:
        """All keys of an account, oldest first."""
        return [self.keys[number] for number in self._by_account.get(slot, ())]

    def code(self, mac: bytes) -> CodeEntry | None:
        """The online code with this MAC."""
        entry = self.codes.get(_short(mac))
        return entry if entry is not None and entry.lookup == mac[:REF_BYTES] else None

    def apply_policies(self, rows: Sequence[Sequence[Any]]) -> None:
        """New policies."""
        for number, record, _ in rows:
            assert number == len(self.policies)
            self.policies.append(Policy.decode(record))

    def apply_requestors(self, rows: Sequence[Sequence[Any]]) -> None:
        """New requestors, and newer rows of known ones."""
        for _, trid, record, _ in rows:
            self.requestors[trid] = Requestor.decode(record)

    def apply_accounts(self, rows: Sequence[Sequence[Any]]) -> None:
        """New accounts, in the order of their ids, as columns."""
        first = len(self)
        assert rows[0][0] == first + 1
        assert rows[-1][0] == first + len(rows)
        head = np.frombuffer(b"".join([row[5][: _HEAD.itemsize] for row in rows]), _HEAD)
        refs = b"".join([row[1] for row in rows])
        self.refs += refs
        self.sealed += head["sealed"].tobytes()
        self.last_fours.frombytes(head["last_four"].astype("u2").tobytes())
        self.expiries.frombytes(head["expires"].astype("i8").tobytes())
        self.account_policies.frombytes(head["policy"].astype("u4").tobytes())
        self.versions.extend([row[3] for row in rows])
        self.states += np.where(head["erased"] != 0, ERASED, head["state"]).astype("u1").tobytes()
        # The dictionary last: what it leads to is there.
        shorts = np.frombuffer(refs, "<u8")[::2]
        self._slots.update(zip(shorts.tolist(), range(first, first + len(rows)), strict=True))

    def apply_account(self, columns: Sequence[Any]) -> None:
        """A newer row of a known account."""
        row: AccountRow = account_from(columns)
        slot = row.id - 1
        if row.version < self.versions[slot]:
            return
        self.sealed[slot * SEALED_TOKEN_BYTES : (slot + 1) * SEALED_TOKEN_BYTES] = row.sealed_token
        self.last_fours[slot] = row.last_four
        self.expiries[slot] = row.expires_us
        self.account_policies[slot] = row.policy
        self.versions[slot] = row.version
        self.states[slot] = ERASED if row.erased else row.state

    def apply_key(self, columns: Sequence[Any]) -> None:
        """A new key, or a newer row of a known one."""
        row = key_from(columns)
        known = row.id in self.keys
        self.keys[row.id] = KeyEntry(row, row.account - 1, self.policies[row.policy])
        if not known:
            self._by_ref[row.ref] = row.id
            self._by_account.setdefault(row.account - 1, []).append(row.id)
            if row.lookup is not None:
                self._by_lookup[_short(row.lookup)] = row.id

    def apply_codes(self, rows: Sequence[Sequence[Any]]) -> None:
        """New online codes."""
        for _, lookup, key, expires_us, _ in rows:
            short = _short(lookup)
            self.codes[short] = CodeEntry(lookup, key, expires_us)
            self._code_order.append((expires_us, short))

    def apply_aliases(self, rows: Sequence[Sequence[Any]]) -> None:
        """New daily aliases."""
        for _, alias, key, day, _ in rows:
            self.aliases[alias] = AliasEntry(key, day)

    def forget_codes(self, now_us: int) -> None:
        """Drops expired online codes after a while, a few per call so that no batch is delayed."""
        order = self._code_order
        for _ in range(64):
            if not order or order[0][0] + CODE_MEMORY_US > now_us:
                return
            self.codes.pop(order.popleft()[1], None)

    def forget_aliases(self, before_day: int) -> None:
        """Drops aliases of days before this one."""
        for alias in [alias for alias, entry in self.aliases.items() if entry.day < before_day]:
            del self.aliases[alias]

    def expired(self, now_us: int) -> list[int]:
        """Slots of accounts that have expired, but are not yet recorded as expired."""
        states = np.frombuffer(bytes(self.states), "u1")
        expiries = np.array(self.expiries[: len(states)], "i8")
        waiting = np.isin(states, (State.REQUESTED, State.ACTIVE, State.SUSPENDED))
        return np.flatnonzero(waiting & (expiries <= now_us)).tolist()
