"""Options that the locustfile adds to Locust's own, and what each process makes of them when a test starts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import gevent
from locust import events
from locust.env import Environment
from locust.runners import MasterRunner, Runner, WorkerRunner

from loadtest.locust.buckets import install
from loadtest.operations import Supply
from loadtest.supplies import MERCHANTS_DEFAULT, WALLETS_DEFAULT, Place, SupplyError, fetch, place_of

log = logging.getLogger(__name__)

RATE_MESSAGE: Final = "hutong-rate"
"""From the master to its workers: calls a second of each user."""
HOST_DEFAULT: Final = "127.0.0.1:50050"


class Load:
    """What users of one process share."""

    def __init__(self) -> None:
        self.supply: Supply | None = None
        self.rate_per_user: float | None = None
        """Calls a second that each user begins, open loop; None: a closed loop."""
        self.users = 0
        """Users that this process has started, for keys of their own."""
        self.missed = 0
        """Calls that were due and never made, since too many had no answer."""


LOAD: Final = Load()


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    """Options beside Locust's own; each can be set in locust.conf or the environment, too."""
    group = parser.add_argument_group("Hutong")
    group.add_argument("--data", default="", help="Data folder of the network: says its seed and size, and is checked.")
    group.add_argument("--seed", type=int, default=1, help="Seed of the network, where no --data is given.")
    group.add_argument("--wallets", type=int, default=WALLETS_DEFAULT, help="Its wallets for each issuer.")
    group.add_argument("--merchants", type=int, default=MERCHANTS_DEFAULT, help="Its merchants for each acquirer.")
    group.add_argument("--rate", type=float, default=0.0, help="Open loop: calls a second of all users together.")
    group.add_argument("--arrivals", choices=["poisson", "uniform"], default="poisson", help="Of an open loop.")
    group.add_argument("--in-flight", type=int, default=1, help="Closed loop: calls that each user has in flight.")
    group.add_argument("--mix", default="", help="TOML file with a table [mix] of weights, for MixUser.")
    group.add_argument("--slo-p99-ms", type=float, default=50.0, help="Latency that the knee search must hold.")
    group.add_argument("--check", action="store_true", help="After the test: the conservation check on --data.")


@events.init.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    """Once in each process, before any user: finer buckets, and the message that sets the rate."""
    install()
    # gevent's clock stands still while Python imports: without this a short --run-time would be over at once.
    gevent.get_hub().loop.update_now()
    if isinstance(environment.runner, WorkerRunner):
        environment.runner.register_message(RATE_MESSAGE, _take_rate)


def _take_rate(msg: Any, **_: Any) -> None:
    LOAD.rate_per_user = float(msg.data["rate_per_user"])


def set_rate(runner: Runner, rate_per_s: float, users: int) -> None:
    """Sets the rate of all users together, in every process. For load shapes."""
    share = rate_per_s / max(1, users)
    LOAD.rate_per_user = share
    if isinstance(runner, MasterRunner):
        runner.send_message(RATE_MESSAGE, {"rate_per_user": share})


@events.test_start.add_listener
def supply(environment: Environment, **_: Any) -> None:
    """Fetches what users need, before the first of them starts."""
    if isinstance(environment.runner, MasterRunner):
        return
    options = environment.parsed_options
    assert options is not None, "Locust parses options before a test"
    host = environment.host or HOST_DEFAULT
    try:
        place = (
            place_of(Path(options.data), environment.host or "")
            if options.data
            else Place(host, options.seed, options.wallets, options.merchants)
        )
        LOAD.supply = fetch(place)
    except SupplyError as error:
        log.error("%s", error)
        environment.process_exit_code = 1
        if environment.runner is not None:
            gevent.spawn(environment.runner.quit)
        return
    if LOAD.rate_per_user is None and options.rate > 0:
        LOAD.rate_per_user = options.rate / max(1, options.num_users or 1)


@events.test_stop.add_listener
def check(environment: Environment, **_: Any) -> None:
    """Where it is asked for: whether money was lost. Exit status 1 if it was."""
    options = environment.parsed_options
    if LOAD.missed:
        log.warning("%d calls were due and never made: too many had no answer", LOAD.missed)
    if options is None or not options.check or isinstance(environment.runner, WorkerRunner):
        return
    if not options.data:
        log.error("--check needs --data, the folder of the network")
        environment.process_exit_code = 1
        return
    from sandbox.checking import check_folder

    # Reads a whole journal: on a thread, so that workers are still heard.
    report = gevent.get_hub().threadpool.apply(check_folder, (Path(options.data),))
    if report.conserved:
        log.info("conserved: %d payments and refunds, every book agrees", report.payments)
        return
    for finding in report.findings:
        log.error("not conserved: %s", finding)
    environment.process_exit_code = 1
