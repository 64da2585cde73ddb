"""Runs seeds: each on a folder of its own, in memory where the system has such a place."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Final

from gateway.simulation.draw import draw
from gateway.simulation.finish import finish
from gateway.simulation.plan import Plan
from gateway.simulation.world import Result, World

MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a tmpfs, in a folder of its own with a random name
"""Where files cost no disk, if it is there."""


def play(plan: Plan, *, trace: bool = False) -> Result:
    """One run of a plan."""
    with tempfile.TemporaryDirectory(prefix="hutong-simulation-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        world = World(plan, Path(folder), trace=trace)
        logger = logging.getLogger("gateway.engine.loop")
        level, logger.disabled = logger.disabled, True  # a journal that fails is no news here
        try:
            world.begin()
            finish(world)
        finally:
            logger.disabled = level
            result = world.close()
    return result


def play_seed(seed: int, *, trace: bool = False) -> Result:
    """One run of a seed."""
    return play(draw(seed), trace=trace)
