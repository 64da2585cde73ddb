"""Whether the machine's clock can be believed: compared again and again with others, and with itself.

    wall clock     what the machine shows; somebody may set it, by days
    Clock          the wall clock as it was at the start, moved on by a clock that nobody sets
    reference      the clock of the database that several gateways share, where there is one
    others         how far other gateways' wall clocks are from the reference, as they say themselves

Wall clock and reference apart by more than DIFFER_US: this gateway takes no payments and ends nothing by time
(`wrong`) until they agree again. Others apart, or the wall clock was set: nothing is ended by time (`settled` is
False). A setting that stays is followed: at once where the reference did not move and agrees with it, else after
BACK_US or AHEAD_US.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, NamedTuple

from gateway.engine.clock import Clock

log = logging.getLogger(__name__)

DIFFER_US: Final = 2_000_000
"""Clocks that differ by more than this disagree, in microseconds."""
DRIFT_US: Final = 100_000
"""A smaller change is followed at once: clocks are adjusted by as much all the time."""
BACK_US: Final = 5_000_000
"""How long a clock that was set back must stay so before it is followed, if nothing else confirms it. It ends nothing
too early."""
AHEAD_US: Final = 600_000_000
"""The same for a clock that was set forward: what it ends cannot be restored, so it must stay so for ten minutes."""


class Reading(NamedTuple):
    """A reference's time, and what the wall clock showed before and after it was asked; microseconds since 1970."""

    before_us: int
    reference_us: int
    after_us: int

    @property
    def off_us(self) -> int:
        """How far the wall clock is ahead of the reference, at least; 0 if the answer took as long as the
        difference."""
        if self.reference_us < self.before_us:
            return self.before_us - self.reference_us
        return min(self.after_us - self.reference_us, 0)


def differs(off_us: int) -> bool:
    """Whether clocks with this difference disagree."""
    return abs(off_us) > DIFFER_US


def apart(off_us: int) -> str:
    """A difference in words that precede the other clock, such as "8 d 0 h ahead of"."""
    seconds = abs(off_us) / 1e6
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds >= 86_000:
        text = f"{hours // 24} d {hours % 24} h"
    elif seconds >= 3_600:
        text = f"{minutes // 60} h {minutes % 60} min"
    else:
        text = f"{seconds:.1f} s"
    return f"{text} {'ahead of' if off_us > 0 else 'behind'}"


def wrong(off_us: int, others: Mapping[int, int]) -> str:
    """The error text for a wall clock that is so far ahead of the reference. `others`: engine number -> its
    difference."""
    alike = sorted(engine for engine, other_us in others.items() if not differs(other_us - off_us))
    text = f"this machine's clock is {apart(off_us)} the database's"
    if alike:
        return f"{text}, as those of other gateways are (engines {alike}): look at the database's clock first"
    return f"{text}: set it right (look at timedatectl or chronyc tracking)"


class ClockWatch:
    """Maintains `wrong` and `settled` of a Clock. Call `look` about once a second, from one thread at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._setting_us: int | None = None
        """By how much the wall clock was set, until that is followed."""
        self._since_us = 0
        self._reference_us: int | None = None
        """Reference minus monotonic clock, when all clocks last agreed."""
        self._odd: frozenset[int] = frozenset()

    def look(self, reading: Reading | None = None, others: Mapping[int, int] | None = None) -> None:
        """Compares the clocks. `reading`: the reference's time, if there is one and it could be asked; `others`: engine
        number -> how far its wall clock is ahead of the reference, for those that differ from it."""
        clock, others = self._clock, others or {}
        if reading is not None and differs(off_us := reading.off_us):
            self._refuse(wrong(off_us, others))
            return
        if clock.wrong and reading is not None:
            log.warning("this machine's clock agrees with the database's again: payments are taken")
            clock.wrong = ""
        settled = self._look_at_others(others) and not clock.wrong
        reference_us = None if reading is None else reading.reference_us - clock.steady_us()
        ahead_us = clock.wall_us() - clock.now_us()
        if not differs(ahead_us):
            self._setting_us = None
            if abs(ahead_us) > DRIFT_US and not clock.wrong:
                clock.follow()
        elif self._may_follow(ahead_us, reference_us):
            step_us = clock.follow()
            self._setting_us = None
            log.warning("the clock that was set is followed: time is %s what it was", apart(step_us))
        else:
            settled = False
        if settled and reference_us is not None:
            self._reference_us = reference_us
        clock.settled = settled

    def _refuse(self, text: str) -> None:
        clock = self._clock
        if not clock.wrong:
            log.error("no payments are taken and nothing is ended by time: %s", text)
        clock.wrong, clock.settled = text, False

    def _look_at_others(self, others: Mapping[int, int]) -> bool:
        odd = frozenset(engine for engine, off_us in others.items() if differs(off_us))
        if odd and odd != self._odd:
            said = ", ".join(f"engine {engine}'s is {apart(others[engine])} the database's" for engine in sorted(odd))
            log.warning("holds and tokens are not ended by time while gateways' clocks disagree: %s", said)
        self._odd = odd
        return not odd

    def _may_follow(self, ahead_us: int, reference_us: int | None) -> bool:
        """Whether a change of the wall clock may be followed now."""
        clock = self._clock
        if clock.wrong:
            return False
        now_us = clock.steady_us()
        if self._setting_us is None or differs(ahead_us - self._setting_us):
            self._setting_us, self._since_us = ahead_us, now_us
            wait_s = (BACK_US if ahead_us < 0 else AHEAD_US) // 1_000_000
            log.warning(
                "this machine's clock was set: it is %s the time by which payments are made, which goes on as it was. "
                "Nothing is ended by time. It is followed when it stays so for %d s; start again to follow it at once",
                apart(ahead_us),
                wait_s,
            )
        known_us = self._reference_us
        if reference_us is not None and known_us is not None and not differs(reference_us - known_us):
            return True  # the reference did not move, and the wall clock agrees with it
        return now_us - self._since_us >= (BACK_US if ahead_us < 0 else AHEAD_US)
