"""The writes that every change of the vault consists of. All run inside the writer's transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hutong_contract.errors import HutongError, Reason
from hutong_contract.identifiers import uuid7
from tokenization import records, schema
from tokenization.domain import Policy
from tokenization.records import AccountRow, KeyRow
from tokenization.requestors import Requestor
from tokenization.store import Session
from tokenization.suite import Mac


def system_clock_us() -> int:
    """UTC in microseconds."""
    return time.time_ns() // 1000


def new_ref(now_us: int, random_bytes: Callable[[int], bytes]) -> bytes:
    """A fresh reference of 16 bytes: a UUIDv7, all random but for its time."""
    chance = int.from_bytes(random_bytes(10), "big") >> 6
    return uuid7(now_us // 1000, chance >> 62, chance & (1 << 62) - 1)


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes something, when and why: what the history records."""

    requestor: str
    now_us: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Writes:
    """The writes, with the key that tags rows."""

    row_mac: Mac

    def take_ids(self, session: Session, table: str, count: int) -> int:
        """The first of `count` fresh ids. An id is never assigned twice, even after rows were purged."""
        session.run("UPDATE meta SET value = value + ? WHERE name = ?", (count, table))
        last: int = session.rows("SELECT value FROM meta WHERE name = ?", (table,))[0][0]
        return last - count + 1

    def add(self, session: Session, table: str, columns: Sequence[Sequence[Any]]) -> int:
        """Adds rows to one of the plain tables; `columns` are without id and tag. Returns the first id."""
        first = self.take_ids(session, table, len(columns))
        rows = [(number, *values) for number, values in enumerate(columns, first)]
        if table != "failures":
            rows = [(*row, records.plain_tag(self.row_mac, table, row)) for row in rows]
        session.run_many(schema.insert(table), rows)
        return first

    def policy(self, session: Session, policy: Policy) -> int:
        """The id of a policy, added where it is new."""
        record = policy.encode()
        found = session.rows("SELECT id FROM policies WHERE record = ?", (record,))
        return int(found[0][0]) if found else self.add(session, "policies", [(record,)])

    def requestor(self, session: Session, requestor: Requestor) -> None:
        """Registers a requestor, or a newer version of it."""
        self.add(session, "requestors", [(requestor.trid, requestor.encode())])

    def event(self, session: Session, account: int, key: int, kind: str, change: Change) -> None:
        """Adds a line of the history, which also tells readers to read the changed rows again."""
        values = (account, key, change.now_us, kind, change.requestor, change.reason)
        self.add(session, "events", [values])

    def account(self, session: Session, number: int) -> AccountRow:
        """An account as it stands in this transaction."""
        return records.account_from(session.rows(schema.select("accounts", "id = ?"), (number,))[0])

    def key(self, session: Session, number: int) -> KeyRow:
        """A key as it stands in this transaction."""
        return records.key_from(session.rows(schema.select("keys", "id = ?"), (number,))[0])

    def update_account(self, session: Session, before: AccountRow, after: AccountRow) -> None:
        """Replaces a row that is still what it was. Raises HutongError(VAULT_UNAVAILABLE) where it is not."""
        _, ref, blind, version, kek, record, tag = after.row(self.row_mac)
        changed = session.run(
            "UPDATE accounts SET ref = ?, blind = ?, version = ?, kek = ?, record = ?, tag = ? "
            "WHERE id = ? AND version = ? AND kek = ?",
            (ref, blind, version, kek, record, tag, before.id, before.version, before.kek),
        )
        if changed != 1:
            raise HutongError(Reason.ERROR_REASON_VAULT_UNAVAILABLE)

    def update_key(self, session: Session, before: KeyRow, after: KeyRow) -> None:
        """Replaces a row that is still what it was. Raises HutongError(VAULT_UNAVAILABLE) where it is not."""
        _, _, lookup, _, version, record, tag = after.row(self.row_mac)
        changed = session.run(
            "UPDATE keys SET lookup = ?, version = ?, record = ?, tag = ? WHERE id = ? AND version = ?",
            (lookup, version, record, tag, before.id, before.version),
        )
        if changed != 1:
            raise HutongError(Reason.ERROR_REASON_VAULT_UNAVAILABLE)
