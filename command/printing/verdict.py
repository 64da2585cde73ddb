"""Ends a measurement or check that failed: a sentence on standard error says what was missed, and the exit status is
1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NoReturn

import click

NAMED_MAX: Final = 10
"""Things that are named; the rest are counted."""


def failed(what: str, found: Sequence[str] = ()) -> NoReturn:
    """Ends the command: `what` is wrong, in one sentence without its full stop, and each thing `found` on a line."""
    more = [f"and {len(found) - NAMED_MAX:,} more"] if len(found) > NAMED_MAX else []
    raise click.ClickException("\n  ".join([what + (":" if found else "."), *found[:NAMED_MAX], *more]))


@contextmanager
def said_plainly(*kinds: type[Exception]) -> Iterator[None]:
    """Ends the command with an error's own text where one of these kinds is raised: their texts say what to do."""
    try:
        yield
    except kinds as error:
        raise click.ClickException(str(error)) from None
