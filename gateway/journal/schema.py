"""The journal's tables, in SQL for both SQLite and PostgreSQL; only the type of a byte string differs.

A payment costs one row in `payments` (inserted once, updated at each change of state), one in `legs` for each message
that moves or reverses money (the first one's is written with its answer), two in `postings` for each movement, and one
in `events` for each state, with an entry in the index by which watchers of one payment find its events. A payment that
risk rules decline costs one row in `refusals`; each distinct judgement is stored once.

Lists of payments, newest first, need no index that every payment would be written to: refunds have one, and so have
payments that rest in a rare state (gateway.journal.listing).

`payments.open` says who drives a payment: 1, its engine, which has it in memory; 2, nobody, because its funds are held,
until its engine takes it up (on a shared journal any engine); 0, nobody, because it has ended.
"""

from __future__ import annotations

from typing import Final

from gateway.engine.states import State

VERSION: Final = 5
"""Version of this schema, stored in `meta`. A journal of another version is refused."""
DIGESTS: Final = {4: ("b35960debbd70a09", "170b56b27a6d37a7"), 5: ("1b968ac38f2d5b17", "ebb268f220ac3744")}
"""Digests of the text of the tables on SQLite and on PostgreSQL, by version. A new text is a new version: add an entry,
never change one."""

CLOSED: Final = 0
OPEN: Final = 1
HELD: Final = 2
"""Values of `payments.open`."""

TABLES: Final = """
CREATE TABLE IF NOT EXISTS meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS ticks (
    engine BIGINT NOT NULL PRIMARY KEY,
    tick BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS payments (
    payment_id {bytes} NOT NULL PRIMARY KEY,
    engine BIGINT NOT NULL,
    open SMALLINT NOT NULL,
    kind SMALLINT NOT NULL,
    state SMALLINT NOT NULL,
    goal SMALLINT NOT NULL,
    reason TEXT NOT NULL,
    caller TEXT NOT NULL,
    idempotency {bytes} NOT NULL,
    fingerprint {bytes} NOT NULL,
    amount_minor BIGINT NOT NULL CHECK (amount_minor > 0),
    currency TEXT NOT NULL,
    debtor TEXT NOT NULL,
    creditors TEXT NOT NULL,
    attempt SMALLINT NOT NULL,
    account_ref {bytes} NOT NULL,
    key_ref {bytes} NOT NULL,
    last_four TEXT NOT NULL,
    payer_key SMALLINT NOT NULL,
    payee_key SMALLINT NOT NULL,
    merchant_id TEXT NOT NULL,
    terminal_id TEXT NOT NULL,
    reference TEXT NOT NULL,
    route_id BIGINT NOT NULL,
    risk_id BIGINT NOT NULL,
    original_id {bytes},
    debit_original {bytes} NOT NULL,
    credit_original {bytes} NOT NULL,
    counters TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    deadline_us BIGINT NOT NULL,
    ended_us BIGINT NOT NULL,
    refunded_minor BIGINT NOT NULL CHECK (refunded_minor <= amount_minor),
    authorised_minor BIGINT NOT NULL,
    hold_until_us BIGINT NOT NULL
){clustered};
CREATE INDEX IF NOT EXISTS payments_open ON payments (engine) WHERE open = 1;
CREATE INDEX IF NOT EXISTS payments_held ON payments (hold_until_us) WHERE open = 2;
CREATE INDEX IF NOT EXISTS payments_original ON payments (original_id) WHERE original_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS payments_refunds ON payments (payment_id) WHERE original_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS payments_state ON payments (state, payment_id) WHERE state IN (8, 9, 10, 11, 12);
CREATE TABLE IF NOT EXISTS routes (
    route_id BIGINT NOT NULL PRIMARY KEY,
    explanation TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS payments_risk ON payments (payment_id) WHERE risk_id > 0;
CREATE TABLE IF NOT EXISTS judgements (
    risk_id BIGINT NOT NULL PRIMARY KEY,
    judgement TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS refusals (
    payment_id {bytes} NOT NULL PRIMARY KEY,
    time_us BIGINT NOT NULL,
    reason SMALLINT NOT NULL,
    limit_name TEXT NOT NULL,
    risk_id BIGINT NOT NULL,
    caller TEXT NOT NULL,
    amount_minor BIGINT NOT NULL,
    currency TEXT NOT NULL,
    issuer TEXT NOT NULL,
    account_ref {bytes} NOT NULL,
    key_ref {bytes} NOT NULL,
    payer_key SMALLINT NOT NULL,
    merchant_id TEXT NOT NULL,
    terminal_id TEXT NOT NULL
){clustered};
CREATE TABLE IF NOT EXISTS legs (
    payment_id {bytes} NOT NULL,
    number SMALLINT NOT NULL,
    kind SMALLINT NOT NULL,
    participant TEXT NOT NULL,
    original SMALLINT NOT NULL,
    state SMALLINT NOT NULL,
    was_approved SMALLINT NOT NULL,
    code TEXT NOT NULL,
    sent_us BIGINT NOT NULL,
    PRIMARY KEY (payment_id, number)
){clustered};
CREATE TABLE IF NOT EXISTS spends (
    spend {bytes} NOT NULL PRIMARY KEY,
    payment_id {bytes} NOT NULL
){clustered};
CREATE TABLE IF NOT EXISTS counters (
    counter {bytes} NOT NULL PRIMARY KEY,
    used BIGINT NOT NULL
){clustered};
CREATE TABLE IF NOT EXISTS postings (
    posting {serial},
    payment_id {bytes} NOT NULL,
    number SMALLINT NOT NULL,
    account TEXT NOT NULL,
    currency TEXT NOT NULL,
    amount_minor BIGINT NOT NULL,
    posted_us BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS events (
    sequence {serial},
    payment_id {bytes} NOT NULL,
    state SMALLINT NOT NULL,
    time_us BIGINT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_payment ON events (payment_id, sequence);
CREATE TABLE IF NOT EXISTS windows (
    number BIGINT NOT NULL PRIMARY KEY,
    after_sequence BIGINT NOT NULL,
    last_sequence BIGINT NOT NULL,
    closed_us BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS carried (
    number BIGINT NOT NULL,
    currency TEXT NOT NULL,
    payments BIGINT NOT NULL,
    amount_minor BIGINT NOT NULL,
    PRIMARY KEY (number, currency)
);
"""

PAYMENT_COLUMNS: Final = (
    "payment_id",
    "engine",
    "open",
    "kind",
    "state",
    "goal",
    "reason",
    "caller",
    "idempotency",
    "fingerprint",
    "amount_minor",
    "currency",
    "debtor",
    "creditors",
    "attempt",
    "account_ref",
    "key_ref",
    "last_four",
    "payer_key",
    "payee_key",
    "merchant_id",
    "terminal_id",
    "reference",
    "route_id",
    "risk_id",
    "original_id",
    "debit_original",
    "credit_original",
    "counters",
    "created_us",
    "deadline_us",
    "ended_us",
    "refunded_minor",
    "authorised_minor",
    "hold_until_us",
)
LEG_COLUMNS: Final = (
    "payment_id",
    "number",
    "kind",
    "participant",
    "original",
    "state",
    "was_approved",
    "code",
    "sent_us",
)

HOLDERS: Final = (
    "SELECT s.spend, s.payment_id, p.state, p.amount_minor, (SELECT COALESCE(sum(r.amount_minor), 0) FROM payments r "
    f"WHERE r.original_id = s.payment_id AND r.state = {State.SUCCEEDED.value}) "
    "FROM spends s JOIN payments p ON p.payment_id = s.payment_id WHERE {}"
)
"""Orders and the payments that have them, with what refunds of each have given back."""


_KEYS: Final = """
CREATE TABLE IF NOT EXISTS keys (
    idempotency BLOB NOT NULL PRIMARY KEY,
    payment_id BLOB NOT NULL
) WITHOUT ROWID
"""
"""All idempotency keys except the newest, see gateway.journal.repeats; other databases have an index."""


def sqlite_statements() -> list[str]:
    """The statements that create the tables on SQLite; clustered tables store the row in the key's own tree."""
    text = (TABLES + _KEYS).format(bytes="BLOB", serial="INTEGER PRIMARY KEY", clustered=" WITHOUT ROWID")
    return [statement for statement in text.split(";") if statement.strip()]
