"""The journal's tables on PostgreSQL and on databases that speak its protocol, and what each needs besides.

The tables are those of gateway.journal.schema. Three more let gateways share them: `leases` says which process has an
engine number, `numbering` numbers postings and events in the order of commits, and `mail` holds what arrived at one
engine for a payment of another.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.journal.refusals import REFUSAL_COLUMNS
from gateway.journal.schema import LEG_COLUMNS, PAYMENT_COLUMNS, TABLES
from hutong_contract.stored_schema import columns_of

SHARED_TABLES: Final = """
CREATE TABLE IF NOT EXISTS leases (
    engine BIGINT NOT NULL PRIMARY KEY,
    epoch BIGINT NOT NULL,
    tick BIGINT NOT NULL,
    holder TEXT NOT NULL,
    expires_us BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS numbering (
    line TEXT NOT NULL PRIMARY KEY,
    last BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS mail (
    mail_id BYTEA NOT NULL PRIMARY KEY,
    engine BIGINT NOT NULL,
    kind SMALLINT NOT NULL,
    subject BYTEA NOT NULL,
    participant TEXT NOT NULL,
    result BIGINT NOT NULL,
    code TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS mail_engine ON mail (engine);
CREATE UNIQUE INDEX IF NOT EXISTS payments_idempotency ON payments (idempotency);
CREATE INDEX IF NOT EXISTS payments_merchant ON payments (merchant_id, payment_id);
CREATE INDEX IF NOT EXISTS payments_token ON payments (account_ref, payment_id)
"""
LAST_TABLE: Final = "CREATE TABLE IF NOT EXISTS complete (version BIGINT NOT NULL PRIMARY KEY)"
"""The table that is created last; if it exists, so do all others. It stays empty."""
LINE: Final = "journal"
"""The row of `numbering`; postings and events share it."""

POSTGRESQL_TUNING: Final = (
    # A row is updated soon after it was inserted: room in its page keeps the new version there, off the indexes.
    "ALTER TABLE payments SET (fillfactor = 60)",
    "ALTER TABLE legs SET (fillfactor = 60)",
    "ALTER TABLE counters SET (fillfactor = 50)",
    "ALTER TABLE leases SET (fillfactor = 20)",
    "ALTER TABLE numbering SET (fillfactor = 20)",
)
"""Only for PostgreSQL itself; the others have no such pages."""

WRITER_SETTINGS: Final = (
    "SET synchronous_commit = on",
    # Plans are made once for any batch. Every statement of a tick names its rows by key; a plan made while a table was
    # small must not scan it when it has grown.
    "SET plan_cache_mode = force_generic_plan",
    "SET enable_seqscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
    "SET jit = off",
)
"""Only for PostgreSQL itself; the others always plan by keys, or have no such settings."""


def statements() -> list[str]:
    """The statements that create the tables, for PostgreSQL, CockroachDB and YugabyteDB.

    Postings and events get their numbers from the tick (see `numbering`), not from a sequence: a sequence's numbers
    become visible out of order, and a reader that has seen 30 would never see the 20 that is committed after it.
    """
    text = TABLES.format(bytes="BYTEA", serial="BIGINT NOT NULL PRIMARY KEY", clustered="")
    split = [statement.strip() for statement in f"{text};{SHARED_TABLES};{LAST_TABLE}".split(";")]
    return [statement for statement in split if statement and " ticks (" not in statement]


def column_names() -> dict[str, list[str]]:
    """The columns of each table."""
    made = columns_of(statement for statement in statements() if statement.startswith("CREATE TABLE"))
    return {table: [column.split()[0] for column in columns] for table, columns in made.items()}


def column_types(table: str) -> dict[str, str]:
    """Column name to type (BIGINT, SMALLINT, BYTEA, TEXT) of a table of gateway.journal.schema."""
    body = re.search(rf"EXISTS {table} \((.*?)\n\)", TABLES, re.DOTALL)
    assert body is not None, f"no table {table}"
    lines = (line.split() for line in body[1].replace("{bytes}", "BYTEA").splitlines())
    kinds = ("BIGINT", "SMALLINT", "BYTEA", "TEXT")
    return {words[0]: words[1].rstrip(",") for words in lines if len(words) > 1 and words[1].rstrip(",") in kinds}


PAYMENT_TYPES: Final = tuple(column_types("payments")[column] for column in PAYMENT_COLUMNS)
LEG_TYPES: Final = tuple(column_types("legs")[column] for column in LEG_COLUMNS)
REFUSAL_TYPES: Final = tuple(column_types("refusals")[column] for column in REFUSAL_COLUMNS)
