"""Fault 20 with two engines on one PostgreSQL journal: two who close at once give one window, and none ever grows."""

from __future__ import annotations

import random
import threading
from pathlib import Path

from gateway.clearing.closing import close_window
from gateway.clearing.model import Window
from gateway.clearing.reader import ClearingReader
from gateway.clearing.statements import content, statements
from gateway.engine.model import Payment
from gateway.engine.states import State
from gateway.journal.postgres_check import examine_postgresql
from gateway.journal.postgres_reader import PostgresReader
from tests.deadlines import wait_until
from tests.gateway.journal.shared import Node, SharedLink, draft, open_participants, refund

LOAD_S = 1.5


class Closing:
    """One closer: closes as fast as it can at its engine, and notes what each window held at once."""

    def __init__(self, url: str, node: Node, stop: threading.Event) -> None:
        self.windows: dict[int, Window] = {}
        self.held: dict[int, list[bytes]] = {}
        self.failure: BaseException | None = None
        self._url, self._node, self._stop = url, node, stop
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        reader = ClearingReader(PostgresReader(self._url))
        number = 1
        try:
            while not self._stop.is_set():
                window = close_window(number, reader, self._node.engine.inbox.put)
                self.windows[number] = window
                self.held[number] = [one.payment_id for one in reader.settled(window)]
                number += 1
        except BaseException as error:
            self.failure = error
            raise
        finally:
            reader.close()


def test_two_engines_close_windows_while_both_pay(url: str, tmp_path: Path) -> None:
    lock = threading.Lock()
    books, participants = open_participants(tmp_path, latency_us=5_000)
    nodes = [Node(url, SharedLink(lock, participants), lease_us=5_000_000).start() for _ in range(2)]
    stop = threading.Event()
    closers = [Closing(url, node, stop) for node in nodes for _ in range(2)]
    rng = random.Random(7)
    done: list[Payment] = []
    while not stop.wait(0.01):
        callers = []
        for node in nodes:
            payment = draft(rng.randrange(1, 50))
            callers.append((payment, node.create(payment)))
            if done:
                original = rng.choice(done).payment_id
                node.create(refund(original, 1))
        for payment, caller in callers:
            if caller.outcome == State.SUCCEEDED.name:
                done.append(payment)
        if len(closers[0].windows) > 12 and len(done) > 60:
            stop.set()
    for closer in closers:
        closer.thread.join()
        assert closer.failure is None
    wait_until(lambda: not any(node.engine.in_flight for node in nodes))
    reader = ClearingReader(PostgresReader(url))
    last = reader.last()
    assert last is not None
    close_window(last.number + 1, reader, nodes[0].engine.inbox.put)
    windows = {window.number: window for window in reader.windows(limit=10_000)}
    for closer in closers:
        for number, window in closer.windows.items():
            assert windows[number] == window
            # What it held as it was closed is what it holds: no success came into it later.
            assert [one.payment_id for one in reader.settled(window)] == closer.held[number]
    every = [one.payment_id for window in windows.values() for one in reader.settled(window)]
    with_state = reader._rows.rows("SELECT payment_id FROM payments WHERE state = ?", (int(State.SUCCEEDED),))
    assert sorted(every) == sorted(bytes(row[0]) for row in with_state)
    assert sum(bool(held) for held in closers[0].held.values()) > 5
    for window in windows.values():
        positions = reader.positions(window)
        assert sum(one.net_minor for one in positions) == 0
        for statement in statements(positions):
            bytes_twice = [b"".join(content(statement, window, positions, reader.settled(window))) for _ in range(2)]
            assert bytes_twice[0] == bytes_twice[1]
    reader.close()
    for node in nodes:
        node.stop()
    books.close()
    report = examine_postgresql(url)
    assert report.conserved, report.findings
