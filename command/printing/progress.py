"""How far long work is, on standard error: a bar for each thing that is being done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from command.printing.screen import Screen
from loadtest.progress import Begin

Tell = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""


def _bars(*, quiet: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    screen = Screen(stderr=True)
    return Progress(*columns, console=screen, disable=quiet or not screen.is_terminal, transient=True)


@contextmanager
def beginning(*, quiet: bool = False) -> Iterator[Begin]:
    """For work that says what begins, and then how many more are done. Shown on a terminal only."""
    with _bars(quiet=quiet) as bars:

        def begin(what: str, total: int) -> Callable[[int], None]:
            task = bars.add_task(what, total=total)
            return lambda done: bars.advance(task, done)

        yield begin


@contextmanager
def telling(*, quiet: bool = False) -> Iterator[Tell]:
    """For work that says how much of a thing is done, of how much. Shown on a terminal only."""
    with _bars(quiet=quiet) as bars:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=max(total, 1))
            bars.update(tasks[what], completed=done, total=max(total, 1))

        yield tell
