"""Creates a journal in a PostgreSQL database, and checks whether it is the right one."""

from __future__ import annotations

import time
from typing import Final

from psycopg import errors

from gateway.journal.interface import JournalMismatchError
from gateway.journal.postgres_connection import REPEATABLE, TRIPPED, Connection, check_durable, is_postgresql
from gateway.journal.postgres_schema import LINE, POSTGRESQL_TUNING, column_names, statements
from gateway.journal.schema import VERSION
from hutong_contract import stored_schema

CREATIONS_MAX: Final = 50
"""Most attempts to create the tables while other gateways do so too."""
CREATION_PAUSE_S: Final = 0.05
_LAST_TABLE: Final = (
    "SELECT 1 FROM information_schema.tables WHERE table_name = 'complete' AND table_schema = current_schema()"
)
_COLUMNS: Final = (
    "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema() "
    "ORDER BY table_name, ordinal_position"
)
_VERSIONED: Final = {"name", "value"}


def prepare(db: Connection, network: str) -> None:
    """Creates missing tables, and checks that they are of this version and this network."""
    genuine = is_postgresql(db)
    if genuine:
        check_durable(db)
    check_version(db)
    _create_tables(db, genuine=genuine)
    db.execute("INSERT INTO meta (name, value) VALUES ('version', %s) ON CONFLICT DO NOTHING", (str(VERSION),))
    if db.execute("SELECT 1 FROM numbering WHERE line = %s", (LINE,)).fetchone() is None:
        # Not otherwise: beside a tick that has the row locked, this would wait for that tick.
        db.execute("INSERT INTO numbering (line, last) VALUES (%s, 0) ON CONFLICT DO NOTHING", (LINE,))
    _check_number(db)
    if network:
        db.execute("INSERT INTO meta (name, value) VALUES ('network', %s) ON CONFLICT DO NOTHING", (network,))
        (owner,) = db.execute("SELECT value FROM meta WHERE name = 'network'").fetchone() or ("",)
        if owner != network:
            raise JournalMismatchError(
                "the database is the journal of another network; use another database, or, for a further gateway of "
                "that network, its gateway.key"
            )


def check_version(db: Connection) -> None:
    """Raises JournalMismatchError if the database holds a journal of another version, or other tables of the same
    names; changes nothing. Missing tables are allowed: somebody else may be creating them."""
    found: dict[str, list[str]] = {}
    for table, column in db.execute(_COLUMNS):
        found.setdefault(table, []).append(column)
    if set(found.get("meta", ())) >= _VERSIONED:
        _check_number(db)
    wanted = {table: columns for table, columns in column_names().items() if table in found}
    if unlike := stored_schema.differences(found, wanted):
        raise JournalMismatchError(stored_schema.refusal_of_unlike("the database", VERSION, unlike))


def _check_number(db: Connection) -> None:
    row = db.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()
    if row is not None and row[0] != str(VERSION):
        raise JournalMismatchError(stored_schema.refusal("the database", row[0], VERSION))


def database_name(db: Connection) -> str:
    """The identity of a PostgreSQL cluster: its system identifier and timeline. Empty if a database has none."""
    if not is_postgresql(db):
        return ""
    try:
        row = db.execute(
            "SELECT s.system_identifier, c.timeline_id FROM pg_control_system() s, pg_control_checkpoint() c"
        ).fetchone()
    except errors.InsufficientPrivilege:
        return ""
    return f"system {row[0]}, timeline {row[1]}" if row is not None else ""


def record_loss(db: Connection, text: str) -> None:
    """Records in the journal that an operator accepted the loss of commits, and which."""
    db.execute(
        "INSERT INTO meta (name, value) VALUES ('lost commits accepted ' || clock_timestamp()::text, %s) "
        "ON CONFLICT DO NOTHING",
        (text,),
    )


def _create_tables(db: Connection, *, genuine: bool) -> None:
    """Creates missing tables. Gateways that start together may all try, and get in each other's way."""
    for attempt in range(CREATIONS_MAX):
        if attempt:
            time.sleep(CREATION_PAUSE_S)
        try:
            if db.execute(_LAST_TABLE).fetchone() is not None:
                return
            for statement in (*statements(), *(POSTGRESQL_TUNING if genuine else ())):
                db.execute(statement)
        except (*TRIPPED, *REPEATABLE):
            if attempt + 1 == CREATIONS_MAX:
                raise
        else:
            return
