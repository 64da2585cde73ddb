"""Versions of stored tables: a file is checked before anything in it is changed.

Each store keeps a version beside its tables and, in its module, the digest of the tables' text for each version, so
that a test finds a changed text without a new version.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

Columns = dict[str, list[str]]
"""Table to its columns, each as `name TYPE`."""
NAMED_MAX: Final = 5


class SchemaError(ValueError):
    """A file or database has tables of another version, or somebody else's; nothing in it was changed."""


def digest(statements: Iterable[str]) -> str:
    """Identifies the text of tables, ignoring white space."""
    text = "\n".join(" ".join(re.sub(r"--[^\n]*", "", statement).split()) for statement in statements)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def sqlite_columns(database: sqlite3.Connection) -> Columns:
    """The tables of an SQLite database, without SQLite's own."""
    rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return {name: _columns(database, name) for (name,) in rows.fetchall()}


def _columns(database: sqlite3.Connection, table: str) -> list[str]:
    return [f"{row[1]} {row[2]}" for row in database.execute(f"PRAGMA table_info('{table}')")]


def columns_of(statements: Iterable[str]) -> Columns:
    """The tables that these statements create on SQLite."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)
        return sqlite_columns(database)


def differences(found: Mapping[str, Sequence[str]], wanted: Mapping[str, Sequence[str]]) -> str:
    """Missing or wrong tables and columns, in words; empty if they are as wanted. Other tables are ignored."""
    said = []
    for table, columns in wanted.items():
        if table not in found:
            said.append(f"no table {table}")
            continue
        lacking = [column for column in columns if column not in found[table]]
        beyond = [column for column in found[table] if column not in columns]
        if lacking:
            said.append(f"{table} lacks {', '.join(lacking[:NAMED_MAX])}")
        if beyond:
            said.append(f"{table} has {', '.join(beyond[:NAMED_MAX])}")
    return "; ".join(said[:NAMED_MAX])


def refusal(where: object, found: object, wanted: int) -> str:
    """The error text for tables of another version."""
    return (
        f"{where} has schema version {found}, this program reads and writes {wanted}; nothing in it was changed. Use "
        "the program that wrote it, or begin with an empty folder or database"
    )


def refusal_of_unlike(where: object, version: int, unlike: str) -> str:
    """The error text for tables that claim this version but differ from it."""
    return (
        f"{where} calls itself schema version {version} and has other tables than this program's ({unlike}); nothing "
        "in it was changed. Use the program that wrote it, or begin with an empty folder or database"
    )


def prepare_sqlite(database: sqlite3.Connection, path: Path, version: int, statements: Sequence[str]) -> None:
    """Creates the tables in an empty file, or checks that existing ones have this version, which is stored as the
    file's `user_version`. Older files have 0: they are accepted if their tables are as wanted. `statements` create
    missing tables. Raises SchemaError, sqlite3.Error."""
    database.execute("BEGIN IMMEDIATE")
    try:
        found = sqlite_columns(database)
        (stored,) = database.execute("PRAGMA user_version").fetchone()
        if found and stored not in (0, version):
            raise SchemaError(refusal(path, stored, version))
        if found and (unlike := differences(found, columns_of(statements))):
            raise SchemaError(refusal_of_unlike(path, stored or version, unlike))
        for statement in statements:
            database.execute(statement)
        database.execute(f"PRAGMA user_version = {version}")
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def split(text: str) -> list[str]:
    """The statements of a script without semicolons inside of statements."""
    return [statement.strip() for statement in text.split(";") if statement.strip()]
