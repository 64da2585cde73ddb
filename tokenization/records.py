"""Rows of accounts and keys: fixed binary records, their sealed fields, and the tag over a whole row.

The fixed part of an account's record comes first and has the same length in every row, so that a million rows become
columns without being looked at one by one (`index`).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from tokenization.lifecycle import State
from tokenization.suite import KEY_BYTES, OVERHEAD_BYTES, Aead, Mac

REF_BYTES: Final = 16
TAG_BYTES: Final = 16
WRAPPED_BYTES: Final = KEY_BYTES + OVERHEAD_BYTES
SEALED_TOKEN_BYTES: Final = 8 + OVERHEAD_BYTES
NO_SEALED_TOKEN: Final = bytes(SEALED_TOKEN_BYTES)
NO_WRAPPED_KEY: Final = bytes(WRAPPED_BYTES)
PAR_BYTES: Final = 29

ACCOUNT_HEAD: Final = struct.Struct(f">BBHqqI{PAR_BYTES}s{SEALED_TOKEN_BYTES}s{WRAPPED_BYTES}s")
"""State, erased, last four, created, expires, policy, PAR, sealed token, wrapped key; the sealed account follows."""
KEY_HEAD: Final = struct.Struct(f">BBHqqI2s{SEALED_TOKEN_BYTES}sB")
"""Kind, state, last four, created, expires, policy, assurance, sealed number, length of the device id; it follows."""


@dataclass(frozen=True, slots=True)
class AccountRow:
    """One account and its account-unified token."""

    id: int
    ref: bytes
    blind: bytes | None
    """MAC of issuer and account number; None once erased or replaced."""
    version: int
    """Grows with each change of the token or of any of its keys."""
    kek: int
    state: State
    erased: bool
    last_four: int
    created_us: int
    expires_us: int
    policy: int
    par: str
    sealed_token: bytes
    wrapped_key: bytes
    sealed_account: bytes

    def record(self) -> bytes:
        """The stored bytes."""
        return (
            ACCOUNT_HEAD.pack(
                self.state, self.erased, self.last_four, self.created_us, self.expires_us, self.policy,
                self.par.encode(), self.sealed_token, self.wrapped_key,
            )
            + self.sealed_account
        )  # fmt: skip

    def row(self, row_mac: Mac) -> tuple[Any, ...]:
        """The columns, tag included, in the order of schema.COLUMNS."""
        record = self.record()
        head = (self.id, self.ref, self.blind, self.version, self.kek, record)
        return (*head, account_tag(row_mac, head))


def account_tag(row_mac: Mac, columns: Sequence[Any]) -> bytes:
    """The tag over an account's columns (id, ref, blind, version, kek, record)."""
    number, ref, blind, version, kek, record = columns[:6]
    return row_mac(b"account %d %d %d " % (number, version, kek) + ref + (blind or b"-") + record)[:TAG_BYTES]


def account_from(columns: Sequence[Any]) -> AccountRow:
    """Reads an account's columns."""
    number, ref, blind, version, kek, record = columns[:6]
    state, erased, last_four, created, expires, policy, par, token, key = ACCOUNT_HEAD.unpack_from(record)
    return AccountRow(
        number, ref, blind, version, kek, State(state), bool(erased), last_four, created, expires, policy,
        par.rstrip(b"\0").decode(), token, key, bytes(record[ACCOUNT_HEAD.size :]),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One routing key."""

    id: int
    ref: bytes
    lookup: bytes | None
    account: int
    version: int
    kind: int
    """hutong.tokenization.v1.TokenKeyKind"""
    state: State
    last_four: int
    created_us: int
    expires_us: int
    policy: int
    assurance_method: str
    sealed_number: bytes
    device_id: str

    def row(self, row_mac: Mac) -> tuple[Any, ...]:
        """The columns, tag included, in the order of schema.COLUMNS."""
        device = self.device_id.encode()
        record = (
            KEY_HEAD.pack(
                self.kind, self.state, self.last_four, self.created_us, self.expires_us, self.policy,
                self.assurance_method.encode(), self.sealed_number, len(device),
            )
            + device
        )  # fmt: skip
        head = (self.id, self.ref, self.lookup, self.account, self.version, record)
        return (*head, key_tag(row_mac, head))


def key_tag(row_mac: Mac, columns: Sequence[Any]) -> bytes:
    """The tag over a key's columns (id, ref, lookup, account, version, record)."""
    number, ref, lookup, account, version, record = columns[:6]
    return row_mac(b"key %d %d %d " % (number, account, version) + ref + (lookup or b"-") + record)[:TAG_BYTES]


def key_from(columns: Sequence[Any]) -> KeyRow:
    """Reads a key's columns."""
    number, ref, lookup, account, version, record = columns[:6]
    kind, state, last_four, created, expires, policy, assurance, sealed, length = KEY_HEAD.unpack_from(record)
    device = bytes(record[KEY_HEAD.size : KEY_HEAD.size + length]).decode()
    return KeyRow(
        number, ref, lookup, account, version, kind, State(state), last_four, created, expires, policy,
        assurance.decode(), sealed, device,
    )  # fmt: skip


def plain_tag(row_mac: Mac, table: str, columns: Sequence[Any]) -> bytes:
    """The tag over the columns of any other table; lengths are covered, so that no two rows read the same."""
    parts = [table.encode()]
    for value in columns:
        data = value if isinstance(value, bytes) else str(value).encode()
        parts.append(b"%d:%s" % (len(data), data))
    return row_mac(b"".join(parts))[:TAG_BYTES]


def seal_token(cipher: Aead, token: str, ref: bytes) -> bytes:
    """A token's or key's number, sealed for its row."""
    return cipher.seal(int(token).to_bytes(8, "big"), ref + b"number 1")


def open_token(cipher: Aead, sealed: bytes, ref: bytes) -> str:
    """The number again. Raises SealBrokenError."""
    return str(int.from_bytes(cipher.open(sealed, ref + b"number 1"), "big"))


def key_aad(ref: bytes, version: int) -> bytes:
    """Binds a wrapped data key to its token and the KEK's version."""
    return ref + b"data key %d" % version


def account_aad(ref: bytes) -> bytes:
    """Binds a sealed account number to its token, field and data key."""
    return ref + b"account 1"


def erased(account: AccountRow) -> AccountRow:
    """The row with everything destroyed that identifies the account or leads to it."""
    return replace(
        account, blind=None, version=account.version + 1, state=State.DELETED, erased=True, last_four=0, par="",
        sealed_token=NO_SEALED_TOKEN, wrapped_key=NO_WRAPPED_KEY, sealed_account=b"",
    )  # fmt: skip
