"""Users as connections: each drives one raw HTTP/2 connection with calls of one kind, or of a mix.

With `--rate` (or a shape) calls are due on a schedule that answers do not change, and times count from then: what
Locust shows is what a caller waits. Without it each user keeps `--in-flight` calls in flight: 1 is a person who waits,
100 is a fleet of tills on one connection.

Connections are opened in `on_start`: Locust imports this file before it forks for `--processes`, and a connection
opened then would be shared by all of them.
"""

from __future__ import annotations

import contextlib
import os
import time
import tomllib
from pathlib import Path
from typing import Any, ClassVar, Final

from locust import User, task
from locust.exception import StopUser

from loadtest.arrivals import Arrivals
from loadtest.drive import Driver
from loadtest.h2 import ConnectionLostError, UnaryLoad
from loadtest.locust.accounts import MERGE_S, Account
from loadtest.locust.options import HOST_DEFAULT, LOAD
from loadtest.operations import Flow, Mix, Operations
from loadtest.payments import CREATE_PATH

FINISH_S: Final = 5.0
"""How long a user that is stopped waits for its last answers."""
EVERYTHING: Final = {
    "token": 40,
    "scan": 15,
    "code": 10,
    "barcode": 10,
    "hold": 5,
    "refund": 5,
    "repeat": 5,
    "poll": 10,
}
"""The mix of MixUser where no file says another: weights are hundredths."""


class LoadUser(User):
    """One connection. Subclasses say which operations it makes."""

    abstract = True
    weights: ClassVar[dict[str, int]] = {}
    """Operation to weight (loadtest.operations.OPERATIONS)."""

    def on_start(self) -> None:
        """Opens the connection."""
        supply, options = LOAD.supply, self.environment.parsed_options
        if supply is None or options is None:
            raise StopUser  # it was said why
        LOAD.users += 1
        prefix = f"{os.getpid():x}-{LOAD.users:x}-{time.time_ns() // 1_000_000:x}"
        self._account = Account(self.environment)
        self._load = UnaryLoad(self.environment.host or HOST_DEFAULT, CREATE_PATH)
        self._driver = Driver(self._load, Flow(Operations(supply, prefix), Mix(self._mix(options))), self._account.see)
        self._concurrency = options.in_flight
        self._arrivals: Arrivals | None = None
        self._pattern = options.arrivals
        self._number = LOAD.users

    def _mix(self, options: Any) -> dict[str, int]:
        del options
        return self.weights

    @task
    def drive(self) -> None:
        """Calls for a quarter of a second, then what was seen goes to Locust."""
        until = time.perf_counter() + MERGE_S
        try:
            while time.perf_counter() < until:
                self._round()
        except (ConnectionLostError, OSError) as error:
            self.environment.events.user_error.fire(user_instance=self, exception=error, tb=error.__traceback__)
            self._account.merge()
            raise StopUser from error
        self._account.merge_when_due()

    def _round(self) -> None:
        rate = LOAD.rate_per_user
        if rate is None:
            self._driver.closed(self._concurrency)
            return
        now = time.perf_counter()
        if self._arrivals is None:
            self._arrivals = Arrivals(rate, now, pattern=self._pattern, seed=self._number)
        elif self._arrivals.rate_per_s != rate:
            self._arrivals.set_rate(rate, now)
        self._driver.open(self._arrivals)

    def on_stop(self) -> None:
        """Takes the last answers and closes the connection."""
        if LOAD.supply is None:
            return
        with contextlib.suppress(ConnectionLostError, OSError):  # a server that went away was said before
            self._driver.finish(FINISH_S)
        LOAD.missed += self._driver.missed
        self._account.merge()
        self._load.close()


class TokenUser(LoadUser):
    """Pays by token."""

    weights: ClassVar[dict[str, int]] = {"token": 1}


class ScanUser(LoadUser):
    """A wallet that scans merchants' codes."""

    weights: ClassVar[dict[str, int]] = {"scan": 1}


class CodeUser(LoadUser):
    """A terminal that charges the digits of one-time codes."""

    weights: ClassVar[dict[str, int]] = {"code": 1}


class BarcodeUser(LoadUser):
    """A terminal that sends the text of the QR or Code 128 symbols that it scans."""

    weights: ClassVar[dict[str, int]] = {"barcode": 1}


class HoldUser(LoadUser):
    """Pre-authorises, then captures."""

    weights: ClassVar[dict[str, int]] = {"hold": 1}


class RefundUser(LoadUser):
    """Pays, then refunds in full."""

    weights: ClassVar[dict[str, int]] = {"refund": 1}


class RepeatUser(LoadUser):
    """Sends most requests twice, with the same key."""

    weights: ClassVar[dict[str, int]] = {"token": 1, "repeat": 1}


class PollUser(LoadUser):
    """Pays now and then, and asks for states."""

    weights: ClassVar[dict[str, int]] = {"token": 1, "poll": 9}


class HotUser(LoadUser):
    """Everybody pays the same merchant."""

    weights: ClassVar[dict[str, int]] = {"hot": 1}


class MixUser(LoadUser):
    """A mix with exact weights: `--mix FILE` with a TOML table [mix], such as `token = 70`; EVERYTHING without one."""

    weights: ClassVar[dict[str, int]] = EVERYTHING

    def _mix(self, options: Any) -> dict[str, int]:
        if not options.mix:
            return self.weights
        table = tomllib.loads(Path(options.mix).read_text("utf-8")).get("mix", {})
        return dict(table)
