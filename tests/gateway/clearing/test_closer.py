"""Closing at the turns of a period: aligned, no empty windows, one for all turns that were missed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from command.up import up
from gateway.clearing.closing import Closer, close_window, turn_us
from gateway.clearing.reader import ClearingReader
from gateway.engine.clock import Clock
from gateway.engine.model import Close
from gateway.journal.sqlite_reader import SqliteReader
from hutong_contract.errors import HutongError
from tests.gateway.engine.world import World

MINUTE = 60_000_000
EVERY = 15 * MINUTE


class TurnedClock(Clock):
    """The world's clock."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def now_us(self) -> int:
        return self._world.now_us


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def reader(world: World) -> ClearingReader:
    return ClearingReader(SqliteReader(world.folder / "gateway.db"))


def closer(world: World) -> Closer:
    def put(events: Iterable[Close]) -> None:
        world.waiting.extend(events)
        world.tick()

    return Closer(EVERY, lambda: reader(world), put, TurnedClock(world))


def closed(world: World) -> list[int]:
    opened = reader(world)
    found = [window.closed_us for window in opened.windows(limit=100)]
    opened.close()
    return found[::-1]


def test_it_closes_after_a_turn_and_never_an_empty_window(world: World) -> None:
    world.now_us = turn_us(world.now_us, EVERY) + MINUTE
    every = closer(world)
    every.look()
    assert closed(world) == []  # nothing succeeded
    world.create()
    world.run()
    every.look()
    assert closed(world) == []  # not yet
    world.now_us += 20 * MINUTE
    every.look()
    every.look()
    assert len(closed(world)) == 1
    world.now_us += 100 * EVERY
    every.look()
    assert len(closed(world)) == 1  # a hundred turns without a payment
    world.create()
    world.run()
    world.now_us += 100 * EVERY
    closer(world).look()  # another process, after downtime
    closer(world).look()
    assert len(closed(world)) == 2
    every.look()
    assert len(closed(world)) == 2  # somebody else did it


def test_what_succeeded_after_the_turn_waits_for_the_next(world: World) -> None:
    world.now_us = turn_us(world.now_us, EVERY) + MINUTE
    world.create()
    world.run()
    closer(world).look()
    assert closed(world) == []


def test_a_closing_that_failed_is_tried_again(world: World) -> None:
    world.create()
    world.run()
    world.now_us += EVERY
    failing = [True]

    def put(events: Iterable[Close]) -> None:
        for event in events:
            if failing:
                failing.clear()
                event.waiter.fail(HutongError(601))
            else:
                world.waiting.append(event)
                world.tick()

    every = Closer(EVERY, lambda: reader(world), put, TurnedClock(world))
    with pytest.raises(HutongError):
        every.look()
    assert closed(world) == []
    every.look()
    assert len(closed(world)) == 1


def test_an_engine_that_does_not_answer_is_waited_for_so_long(world: World) -> None:
    opened = reader(world)
    with pytest.raises(HutongError, match="JOURNAL_UNAVAILABLE"):
        close_window(1, opened, lambda _: None, wait_s=0.01)
    opened.close()


@pytest.mark.parametrize("wrong", ["0m", "15", "m", "1y", "400d", "-1h"])
def test_a_wrong_period_is_a_usage_error(wrong: str) -> None:
    result = CliRunner().invoke(up, ["--settle-every", wrong])
    assert result.exit_code == 2
    assert "is no length of time" in result.output
