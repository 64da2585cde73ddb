"""What all shapes of load have in common: they set a rate, and users stay."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Final

from locust import LoadTestShape, events

from loadtest.locust.options import set_rate

USERS_DEFAULT: Final = 4
"""Connections, where -u says no other number."""


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    """Options that shapes take; each shape says which."""
    group = parser.add_argument_group("Hutong's shapes")
    group.add_argument("--rate-from", type=float, default=200.0, help="First rate, calls a second.")
    group.add_argument("--rate-to", type=float, default=20_000.0, help="Last rate.")
    group.add_argument("--rate-step", type=float, default=1.4, help="Each stage's rate, as a multiple of the last.")
    group.add_argument("--stage-s", type=float, default=6.0, help="Seconds of a stage.")
    group.add_argument("--spike-s", type=float, default=5.0, help="Seconds of a spike.")


class RateShape(LoadTestShape):
    """A rate over time."""

    abstract: ClassVar[bool] = True
    use_common_options: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def options(self) -> Any:
        """What the command line said."""
        assert self.runner is not None, "Locust sets it before the first tick"
        return self.runner.environment.parsed_options

    @property
    def users(self) -> int:
        """How many connections."""
        return int(self.options.num_users or USERS_DEFAULT)

    @abstractmethod
    def rate_at(self, run_s: float) -> float | None:
        """Calls a second at a moment of the test; None ends it."""

    def tick(self) -> tuple[int, float] | None:
        """As Locust asks, about once a second."""
        rate = self.rate_at(self.get_run_time())  # type: ignore[no-untyped-call]
        if rate is None:
            return None
        assert self.runner is not None, "Locust sets it before the first tick"
        set_rate(self.runner, rate, self.users)
        return self.users, float(self.users)
