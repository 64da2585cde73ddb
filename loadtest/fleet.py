"""Generators as processes of their own: closed and open loops of payments, and storms of status queries."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final

import numpy as np

from hutong.gateway.v1 import payment_pb2 as pb
from loadtest.h2 import Reply, UnaryLoad, closed_loop, open_loop
from loadtest.payments import CREATE_PATH, GET_PATH, Payments, succeeded

RESOURCE_EXHAUSTED: Final = 8
"""gRPC status of a refusal for the sake of load."""
ANSWER_S: Final = 180.0
ROUND_S: Final = 0.002
"""Between two looks of a storm at its connections."""


@dataclass(slots=True)
class Tally:
    """What one generator saw, latencies in milliseconds from when each call was due."""

    calls: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    in_time: int = 0
    """Good calls that were answered while the load was on, and the queues as long as it makes them."""
    good_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    failures: Counter[int] = field(default_factory=Counter)
    """Calls that were neither, by gRPC status (0 where the answer itself was not good)."""

    def count(self, reply: Reply, latency_s: float, good: bool, begin: float, end: float) -> None:
        """Adds one reply; from `begin` to `end` it counts as in time."""
        if reply.status == RESOURCE_EXHAUSTED:
            self.refused_ms.append(latency_s * 1e3)
        elif good:
            self.good_ms.append(latency_s * 1e3)
            self.in_time += begin <= time.perf_counter() <= end
        else:
            self.failures[reply.status] += 1


def total(tallies: Sequence[Tally]) -> Tally:
    """What several generators saw together."""
    one = Tally(seconds=max(tally.seconds for tally in tallies))
    for tally in tallies:
        one.calls += tally.calls
        one.cpu_s += tally.cpu_s
        one.in_time += tally.in_time
        one.good_ms += tally.good_ms
        one.refused_ms += tally.refused_ms
        one.failures += tally.failures
    return one


def percentiles(values_ms: Sequence[float], *names: float) -> dict[str, float]:
    """Percentiles by their names, such as p50, in milliseconds; empty where there is no value."""
    if not values_ms:
        return {}
    return {
        f"p{name:g}": round(float(value), 3) for name, value in zip(names, np.percentile(values_ms, names), strict=True)
    }


@dataclass(frozen=True, slots=True)
class Closed:
    """Payments with a fixed number in flight."""

    concurrency: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Open:
    """Payments on a schedule, whatever the server does."""

    per_s: float
    seconds: float
    filling_s: float = 0.0
    """At first queues fill and nothing can have ended: answers of so long are not counted as in time."""


@dataclass(frozen=True, slots=True)
class Storm:
    """Status queries on a schedule, by many callers on connections of their own."""

    callers: int
    per_s: float
    """Of each caller."""
    seconds: float
    payment_ids: tuple[str, ...]


class Fleet:
    """Some generator processes, which work at the same time."""

    def __init__(
        self, size: int, target: str, tokens: list[str], merchants: list[tuple[str, str]], *, prefix: str = "fleet"
    ) -> None:
        """`prefix` of the idempotency keys; two fleets at one gateway need two."""
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for number in range(size):
            ours, theirs = context.Pipe()
            name = f"{prefix}-{number}".encode()
            process = context.Process(target=_work, args=(theirs, target, tokens, merchants, name), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            _receive(pipe)  # it is there

    def begin(self, *orders: Closed | Open | Storm) -> None:
        """Gives each generator its order."""
        for pipe, order in zip(self._pipes, orders, strict=True):
            pipe.send(order)

    def end(self) -> Tally:
        """Waits until all are done. Raises TimeoutError where one is not."""
        return total([_receive(pipe) for pipe in self._pipes])

    def stop(self) -> None:
        """Ends the processes."""
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join(ANSWER_S)


def _receive(pipe: Connection) -> Any:
    if not pipe.poll(ANSWER_S):
        raise TimeoutError("a load generator does not answer; is the machine overloaded?")
    return pipe.recv()


def _work(pipe: Connection, target: str, tokens: list[str], merchants: list[tuple[str, str]], name: bytes) -> None:
    """A generator process: takes orders until None comes."""
    payments = Payments(tokens, merchants, prefix=name)
    pipe.send(None)
    while (order := pipe.recv()) is not None:
        begin, cpu = time.perf_counter(), time.process_time()
        tally = _storm(order, target, name.decode()) if isinstance(order, Storm) else _pay(order, target, payments)
        tally.seconds = time.perf_counter() - begin
        tally.cpu_s = time.process_time() - cpu
        pipe.send(tally)


def _pay(order: Closed | Open, target: str, payments: Payments) -> Tally:
    load, tally = UnaryLoad(target, CREATE_PATH), Tally()
    begin = time.perf_counter()
    end = begin + order.seconds
    if isinstance(order, Open):
        begin += order.filling_s

    def seen(reply: Reply, latency_s: float) -> None:
        tally.count(reply, latency_s, reply.status == 0 and succeeded(reply), begin, end)

    if isinstance(order, Closed):
        tally.calls = closed_loop(
            load, order.concurrency, end, payments.message, lambda reply: seen(reply, reply.latency_s)
        )
    else:
        tally.calls = open_loop(load, order.per_s, order.seconds, payments.message, seen)
    load.close()
    return tally


def _storm(order: Storm, target: str, name: str) -> Tally:
    """Each caller asks on a schedule of its own; what is due while this process is busy is sent together."""
    tally = Tally()
    asks = [pb.GetPaymentRequest(payment_id=one).SerializeToString() for one in order.payment_ids]
    loads = [UnaryLoad(target, GET_PATH, caller=f"{name}-{number}") for number in range(order.callers)]
    begin = time.perf_counter()
    end, sent = begin + order.seconds, 0
    while (now := time.perf_counter()) < end or (any(load.in_flight for load in loads) and now < end + ANSWER_S / 2):
        due = int(order.per_s * (min(now, end) - begin))
        for load in loads:
            for tag in range(sent, due):
                load.send(tag, asks[tag % len(asks)])
            for reply in load.exchange(0.0):
                late_s = time.perf_counter() - (begin + reply.tag / order.per_s)
                tally.count(reply, late_s, reply.status == 0, begin, end)
        tally.calls += (due - sent) * len(loads)
        sent = due
        time.sleep(ROUND_S)
    for load in loads:
        load.close()
    return tally
