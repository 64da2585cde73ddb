"""Every store: the text of its tables and its version move together, what is of another version is refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from facepay import keys as face_keys
from facepay import store as face_store
from gateway.journal import postgres_schema, schema
from hutong_contract.stored_schema import SchemaError, digest, split
from sandbox.checking import check_folder
from sandbox.journals import JournalError, open_journal, open_journal_reader
from sandbox.network import Network, NetworkError
from sandbox.options import NetworkOptions
from sandbox.participants import books
from tokenization import schema as vault_schema

NEW = "the text of these tables has changed: raise the version and add its digest, so that older files are refused"


@pytest.mark.parametrize(
    ("version", "digests", "found"),
    [
        pytest.param(
            schema.VERSION,
            schema.DIGESTS,
            (digest(schema.sqlite_statements()), digest(postgres_schema.statements())),
            id="journal",
        ),
        pytest.param(vault_schema.SCHEMA_VERSION, vault_schema.DIGESTS, digest(vault_schema.TABLES), id="vault"),
        pytest.param(books.VERSION, books.DIGESTS, digest(books.STATEMENTS), id="books"),
        pytest.param(face_store.VERSION, face_store.DIGESTS, digest(face_store.STATEMENTS), id="faces"),
        pytest.param(face_keys.VERSION, face_keys.DIGESTS, digest(face_keys.STATEMENTS), id="face keys"),
    ],
)
def test_text_and_version_move_together(version: int, digests: dict[int, object], found: object) -> None:
    assert max(digests) == version
    assert digests[version] == found, f"{NEW}: {found}"
    assert len(set(digests.values())) == len(digests), "each version has a text of its own"


def test_a_digest_sees_a_column_and_no_white_space() -> None:
    text = "CREATE TABLE a (\n    b TEXT -- a remark\n);"
    assert digest(split(text)) == digest(split("CREATE TABLE a ( b TEXT )"))
    assert digest(split(text)) != digest(split("CREATE TABLE a ( b TEXT, c TEXT )"))


def _old_journal(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL)")
        database.execute("INSERT INTO meta VALUES ('version', '1')")
        database.execute("CREATE TABLE payments (payment_id BLOB PRIMARY KEY, amount INTEGER)")
        database.commit()


def _contents(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return list(database.iterdump())


def test_an_older_journal_is_refused_by_whoever_opens_it_and_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    _old_journal(path)
    before = _contents(path)
    uses: list[Callable[[], object]] = [
        lambda: open_journal(tmp_path),
        lambda: open_journal_reader(tmp_path),
        lambda: check_folder(tmp_path),
    ]
    for use in uses:
        with pytest.raises(JournalError, match=rf"version 1, this program reads and writes {schema.VERSION}; nothing"):
            use()
    with pytest.raises(NetworkError, match="schema version 1"):
        Network.start(NetworkOptions(data=tmp_path, listen="127.0.0.1:0"))
    assert _contents(path) == before


def test_a_journal_whose_tables_are_not_its_versions_is_refused(tmp_path: Path) -> None:
    opened = open_journal(tmp_path)
    opened.journal.close()
    opened.unlock()
    path = tmp_path / "gateway.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("ALTER TABLE refusals DROP COLUMN limit_name")
    with pytest.raises(JournalError, match="refusals lacks limit_name TEXT"):
        open_journal(tmp_path)


def test_another_programs_file_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as database:
        database.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(JournalError, match="is not a journal: it holds other tables"):
        open_journal(tmp_path)


@pytest.fixture(params=["books", "faces", "keys"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Callable[[], object]]]:
    """A file of tables with a version, and what opens it anew."""
    if request.param == "books":
        yield tmp_path / books.FILE_NAME, lambda: books.Books(tmp_path).close()
        return
    if request.param == "keys":
        yield tmp_path / "keys.db", lambda: face_keys.Keyring(tmp_path).close()
        return
    ring = face_keys.Keyring(tmp_path)
    yield tmp_path / "faces.db", lambda: face_store.Store(tmp_path, ring, 8).close()
    ring.close()


def test_other_stores_refuse_another_version_too(store: tuple[Path, Callable[[], object]]) -> None:
    path, reopen = store
    reopen()
    for version, statement, said in (
        (9, "SELECT 1", "schema version 9, this program reads and writes 1"),
        (0, "SELECT 1", ""),  # as files were before the version was kept in them
        (0, "ALTER TABLE {} RENAME TO former", "no table"),
    ):
        with closing(sqlite3.connect(path)) as database:
            database.execute(f"PRAGMA user_version = {version}")
            (table,) = database.execute("SELECT max(name) FROM sqlite_master WHERE type = 'table'").fetchone()
            database.execute(statement.format(table))
        if not said:
            reopen()
            continue
        with pytest.raises((SchemaError, books.BooksError), match=said):
            reopen()
