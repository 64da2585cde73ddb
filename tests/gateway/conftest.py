"""Worlds on either journal: a test that asks for `world` runs on both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.journal.postgres import PostgresJournal
from gateway.journal.postgres_check import examine_postgresql
from gateway.journal.postgres_reader import PostgresReader
from tests.gateway.engine.world import World


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
