from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tokenization.world import World


@pytest.fixture(params=["international", "sm"])
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """A vault of its own, in each crypto suite."""
    made = World(tmp_path / "vault", request.param)
    yield made
    made.service.close()
