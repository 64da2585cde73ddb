"""The vault's tables, in SQL that both SQLite and PostgreSQL accept.

Rules: the writer assigns ids in order, so that a reader can follow a table by its last id. Rows of accounts and keys
change under a condition on their version. Every row carries a tag, a MAC over all of it, so that a changed byte is
found when the vault opens. Whatever identifies a person is sealed or a keyed MAC.
"""

from __future__ import annotations

from typing import Final

SCHEMA_VERSION: Final = 1
DIGESTS: Final = {1: "df8990b40e93ae2c"}
"""Digests of the text of the tables, by version. A new text is a new version: add an entry, never change one."""

VERSION_NAME: Final = "schema_version"
"""Name of the row of `meta` that holds the version. Vaults without it have version 1."""

TABLES: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value BIGINT NOT NULL)",
    # The service's own keys, one for each purpose, wrapped by the KEK.
    "CREATE TABLE purposes (name TEXT PRIMARY KEY, kek BIGINT NOT NULL, wrapped {bytes} NOT NULL)",
    # Policy.encode(), once for all who share it.
    "CREATE TABLE policies (id {id} PRIMARY KEY, record {bytes} NOT NULL UNIQUE, tag {bytes} NOT NULL)",
    # Requestor.encode().
    "CREATE TABLE requestors (id {id} PRIMARY KEY, trid TEXT NOT NULL, record {bytes} NOT NULL, tag {bytes} NOT NULL)",
    # ref: names the token; blind: names issuer and account number, NULL once erased or replaced; record: `records`.
    "CREATE TABLE accounts (id {id} PRIMARY KEY, ref {bytes} NOT NULL UNIQUE, blind {bytes} UNIQUE, "
    "version BIGINT NOT NULL, kek BIGINT NOT NULL, record {bytes} NOT NULL, tag {bytes} NOT NULL)",
    # ref: names the key; lookup: MAC of what is presented, NULL where something else leads here.
    "CREATE TABLE keys (id {id} PRIMARY KEY, ref {bytes} NOT NULL UNIQUE, lookup {bytes} UNIQUE, "
    "account BIGINT NOT NULL, version BIGINT NOT NULL, record {bytes} NOT NULL, tag {bytes} NOT NULL)",
    "CREATE INDEX keys_account ON keys (account)",
    # Online codes, by the MAC of their digits.
    "CREATE TABLE codes (id {id} PRIMARY KEY, lookup {bytes} NOT NULL UNIQUE, key BIGINT NOT NULL, "
    "expires_us BIGINT NOT NULL, tag {bytes} NOT NULL)",
    # Daily aliases of offline codes.
    "CREATE TABLE aliases (id {id} PRIMARY KEY, alias BIGINT NOT NULL UNIQUE, key BIGINT NOT NULL, "
    "day BIGINT NOT NULL, tag {bytes} NOT NULL)",
    # Wrong codes: subject is a MAC of an alias and day, or of a terminal.
    "CREATE TABLE failures (id {id} PRIMARY KEY, subject {bytes} NOT NULL, time_us BIGINT NOT NULL)",
    # History and change feed in one; key 0 is the token itself.
    "CREATE TABLE events (id {id} PRIMARY KEY, account BIGINT NOT NULL, key BIGINT NOT NULL, "
    "time_us BIGINT NOT NULL, kind TEXT NOT NULL, requestor TEXT NOT NULL, reason TEXT NOT NULL, tag {bytes} NOT NULL)",
    "CREATE INDEX events_account ON events (account, id)",
)

COLUMNS: Final = {
    "policies": "id, record, tag",
    "requestors": "id, trid, record, tag",
    "accounts": "id, ref, blind, version, kek, record, tag",
    "keys": "id, ref, lookup, account, version, record, tag",
    "codes": "id, lookup, key, expires_us, tag",
    "aliases": "id, alias, key, day, tag",
    "failures": "id, subject, time_us",
    "events": "id, account, key, time_us, kind, requestor, reason, tag",
}
"""Every table that a reader follows, in the order in which its rows refer to each other."""


def tables(bytes_type: str, id_type: str) -> list[str]:
    """The statements for a database that calls a byte string `bytes_type` and a row's number `id_type`."""
    return [statement.format(bytes=bytes_type, id=id_type) for statement in TABLES]


def insert(table: str) -> str:
    """The statement that adds a row."""
    columns = COLUMNS[table]
    return f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * (columns.count(',') + 1))})"  # noqa: S608 - constants


def select(table: str, condition: str) -> str:
    """The statement that reads rows."""
    return f"SELECT {COLUMNS[table]} FROM {table} WHERE {condition}"  # noqa: S608 - constants
