"""How a measurement says what it does and how far it is; whoever starts it shows that, or does not."""

from __future__ import annotations

from collections.abc import Callable

Advance = Callable[[int], None]
"""Called with how many more are done."""
Begin = Callable[[str, int], Advance]
"""Called with what begins and how many there are of it."""


def unseen(*_: object) -> Advance:
    """A `Begin` that shows nothing."""
    return lambda _: None
