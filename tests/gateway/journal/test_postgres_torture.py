"""Two engine processes on one database, killed and cut off again and again under load: nothing acknowledged is lost."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import signal
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import psycopg
import pytest

from gateway.engine.states import FINAL, State
from gateway.journal.conservation import compare
from gateway.journal.postgres_check import examine_postgresql
from gateway.journal.postgres_reader import PostgresReader
from sandbox.participants.books import totals
from tests.deadlines import wait_until
from tests.gateway.journal import torn_engine
from tests.gateway.journal.remote_participants import ParticipantHost, PipeLink
from tests.gateway.journal.shared import Node

log = logging.getLogger(__name__)
SECONDS = float(os.environ.get("HUTONG_TORTURE_SECONDS", "2"))
SEED = int(os.environ.get("HUTONG_TORTURE_SEED", "1"))
ENGINES = 2


class Torture:
    """Engines, what they acknowledged, and the hand that kills them."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.host = ParticipantHost(folder)
        self.acknowledged: list[tuple[str, bytes, int, bytes]] = []
        self.kills = self.cuts = 0
        self._lock = threading.Lock()
        self._context = multiprocessing.get_context("spawn")
        self._rng = random.Random(SEED)
        self._first = 0
        self.engines = [self._start() for _ in range(ENGINES)]

    def _start(self) -> BaseProcess:
        told, theirs = self._context.Pipe()
        legs, their_legs = self._context.Pipe()
        seed = self._rng.randrange(2**32)
        process = self._context.Process(
            target=torn_engine.serve, args=(theirs, their_legs, self.url, self._first, seed), daemon=True
        )
        process.start()
        theirs.close()
        their_legs.close()
        self.host.serve(legs)
        threading.Thread(target=self._listen, args=(told,), daemon=True).start()
        return process

    def _listen(self, told: Connection) -> None:
        with suppress(EOFError, OSError):
            while True:
                one = told.recv()
                with self._lock:
                    self.acknowledged.append(one)

    def paid(self) -> int:
        with self._lock:
            return len(self.acknowledged)

    def kill_one(self) -> None:
        """kill -9, and another in its place that begins with the requests made last."""
        index = self._rng.randrange(ENGINES)
        os.kill(self.engines[index].pid or 0, signal.SIGKILL)
        self.engines[index].join()
        self.kills += 1
        with self._lock:
            made = [int(key.removeprefix("pay-")) for key, *_ in self.acknowledged if key.startswith("pay-")]
        self._first = max(made, default=0)
        self.engines[index] = self._start()

    def cut_one(self) -> None:
        """The database ends a connection in the middle of whatever it does."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE backend_type = "
                "'client backend' AND pid != pg_backend_pid() ORDER BY random() LIMIT 1) AS one"
            )
        self.cuts += 1

    def end(self) -> None:
        for process in self.engines:
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
        self.kills += len(self.engines)


@pytest.mark.slow
def test_kills_and_cuts_under_load(url: str, tmp_path: Path) -> None:
    """Faults 2, 5, 11, 16, 18 and 19 over two gateways at once."""
    torture = Torture(url, tmp_path)
    wait_until(lambda: torture.paid() > 50)
    rng = random.Random(SEED)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        threading.Event().wait(rng.uniform(0.1, 0.9))
        if rng.random() < 0.5:
            torture.cut_one()
        else:
            before = torture.paid()
            torture.kill_one()
            wait_until(lambda before=before: torture.paid() > before + 20)  # type: ignore[misc]
    torture.end()
    link_ours, link_theirs = multiprocessing.Pipe()
    torture.host.serve(link_theirs)
    link = PipeLink(link_ours)
    survivor = Node(url, link)  # type: ignore[arg-type]
    link.wake = survivor.engine.inbox.wake
    survivor.start()
    wait_until(lambda: examine_postgresql(url).in_flight == 0, 30)
    survivor.stop()
    _check(torture)
    link_ours.close()
    torture.host.books.close()


def _check(torture: Torture) -> None:
    report = examine_postgresql(torture.url)
    compare(report, totals(torture.host.books.path))
    assert report.conserved, report.findings
    assert torture.kills >= 3
    reader = PostgresReader(torture.url)
    stored = {
        one.payment_id: one.state for one in reader.payments(sorted({key for _, key, _, _ in torture.acknowledged}))
    }
    reader.close()
    bodies: dict[str, set[bytes]] = {}
    for key, payment_id, state, body in torture.acknowledged:
        if State(state) in FINAL:
            assert stored[payment_id] == state, (key, State(state), stored[payment_id])
            bodies.setdefault(key, set()).add(body)
        else:
            assert payment_id in stored
    different = [key for key, answers in bodies.items() if len(answers) != 1]
    assert not different, different
    repeated = sum(1 for key, _, _, _ in torture.acknowledged if key in bodies) - len(bodies)
    assert repeated > 0, "no request was repeated"
    assert report.by_state.get("SUCCEEDED", 0) > 100
    with psycopg.connect(torture.url) as connection:
        ((over,),) = connection.execute(f"SELECT count(*) FROM counters WHERE used > {torn_engine.CAP}".encode())
        assert over == 0
    log.info("%d kills, %d cuts, %d answers, %s", torture.kills, torture.cuts, torture.paid(), report.by_state)
