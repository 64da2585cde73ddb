"""The gate: what waits for the engine is bounded by the time it would wait, and the rest is refused at once."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.admission import RETRY_US, TARGET_S, TICK_MAX, WAITING_MAX, WAITING_MIN, Gate
from gateway.calls import CANCEL, CREATE, CREATE_BATCH, batch_size, payments_in
from gateway.engine.inbox import Inbox
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError, Reason, from_status


class Asked:
    def __init__(self, method: int = CREATE, size: int = 1) -> None:
        self.method = method
        self.payload = b""
        if method == CREATE_BATCH:
            self.payload = batch(size)
        self.caller = ""
        self.time_left_us: int | None = None
        self.error: HutongError | None = None

    def answer(self, payload: bytes) -> None:
        raise AssertionError("the gate answers nothing")

    def fail(self, error: HutongError) -> None:
        assert self.error is None
        self.error = error


def batch(size: int) -> bytes:
    one = pb.CreatePaymentRequest(idempotency_key="k" * 40, amount_minor=5, reference="r" * 64)
    return pb.BatchCreatePaymentsRequest(requests=[one] * size).SerializeToString()


class World:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.gate = Gate(Inbox[Any](), clock=lambda: self.now_s)

    def offer(self, *calls: Asked) -> int:
        """How many of them are refused."""
        weight = sum(payments_in(call) for call in calls)
        before = self.gate.refused
        assert self.gate.offer(calls, weight) is (self.gate.refused == before)
        return self.gate.refused - before

    def many(self, count: int) -> int:
        return self.offer(*(Asked() for _ in range(count)))

    def take(self) -> list[Asked]:
        """All that waits, tick by tick."""
        taken: list[Any] = []
        while calls := self.gate.poll(4096):
            assert len(calls) <= TICK_MAX
            taken += calls
        return taken

    def serve(self, per_s: float, ticks: int = 50) -> None:
        """The engine at saturation: each tick takes what waits, at so many payments a second."""
        for _ in range(ticks):
            self.many(2 * WAITING_MAX)
            self.now_s += len(self.gate.poll(4096)) / per_s


def test_what_fits_is_taken_in_order_and_the_rest_is_refused_with_the_time_to_try_again() -> None:
    world = World()
    calls = [Asked() for _ in range(WAITING_MIN + 10)]
    assert world.offer(*calls) == 10
    assert world.take() == calls[:WAITING_MIN]
    assert all(call.error is None for call in calls[:WAITING_MIN])
    for call in calls[WAITING_MIN:]:
        assert call.error is not None
        error = from_status(call.error.to_status())
        assert error is not None
        assert (error.reason, error.retry_us) == (Reason.ERROR_REASON_OVERLOADED, RETRY_US)
    assert world.many(WAITING_MIN) == 0, "what was taken waits no more"


def test_a_tick_takes_what_its_size_allows_and_the_rest_keeps_its_place() -> None:
    world = World()
    batches = [Asked(CREATE_BATCH, size) for size in (150, 250, 1, 500, 100)]
    assert world.offer(*batches) == 0
    assert [world.gate.poll(4096) for _ in range(4)] == [batches[:2], batches[2:3], batches[3:4], batches[4:]]
    assert world.gate.poll(4096) == []
    assert world.many(WAITING_MIN) == 0, "all of it was counted out again"


def test_a_batch_counts_by_its_size() -> None:
    world = World()
    batches = [Asked(CREATE_BATCH, 500) for _ in range(10)]
    assert world.offer(*batches) == 7, "the third begins below the bound, and is not taken apart"
    assert world.many(1) == 1


@pytest.mark.parametrize("size", [1, 2, 127, 500])
def test_the_size_of_a_batch_is_read_without_parsing_it(size: int) -> None:
    assert batch_size(batch(size)) == size


@pytest.mark.parametrize("payload", [b"", b"\x0a", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff", b"\x12\x01", b"\xff" * 50])
def test_what_is_no_batch_counts_as_something(payload: bytes) -> None:
    assert batch_size(payload) >= 1


def test_what_ends_payments_may_wait_when_new_ones_may_not() -> None:
    world = World()
    world.many(2 * WAITING_MIN)
    assert world.offer(*(Asked(CANCEL) for _ in range(100))) == 0
    assert world.offer(*(Asked(CANCEL) for _ in range(WAITING_MAX))) == 100 + WAITING_MIN


@pytest.mark.parametrize(
    ("per_s", "bound"), [(1_000.0, WAITING_MIN), (20_000.0, int(20_000 * TARGET_S)), (1e6, WAITING_MAX)]
)
def test_the_bound_is_what_the_engine_serves_within_the_target(per_s: float, bound: int) -> None:
    world = World()
    world.serve(per_s)
    assert abs(world.gate.bound - bound) <= bound / 100


def test_a_pause_is_not_taken_for_a_slow_engine() -> None:
    world = World()
    world.serve(20_000.0)
    before = world.gate.bound
    for _ in range(50):
        world.gate.idle()
        world.now_s += 10.0
        world.many(5)
        world.gate.poll(4096)
    assert world.gate.bound == before


def test_a_front_sees_how_much_fits_and_says_what_it_turned_away() -> None:
    world = World()
    assert world.gate.room == WAITING_MIN
    world.many(WAITING_MIN - 3)
    assert world.gate.room == 3
    world.offer(Asked(CREATE_BATCH, 3))
    assert world.gate.room == 0
    cancellation = Asked(CANCEL)
    assert world.offer(cancellation) == 0, "it may wait above the bound"
    assert world.gate.room == 0
    world.gate.turned_away(5)
    assert world.gate.refused == 5
    world.take()
    assert world.gate.room == world.gate.bound


def test_a_shut_gate_refuses_all_that_waits_and_comes_until_it_is_opened() -> None:
    world = World()
    waiting, late, after = Asked(), [Asked(), Asked(CANCEL)], Asked()
    assert world.offer(waiting) == 0
    refusal = HutongError(Reason.ERROR_REASON_JOURNAL_UNAVAILABLE)
    world.gate.shut(refusal)
    assert world.gate.is_shut
    assert world.gate.room == 0
    assert world.offer(*late) == 2
    assert [call.error for call in (waiting, *late)] == [refusal] * 3
    assert world.gate.refusal is refusal
    assert world.take() == []
    world.gate.open()
    assert world.gate.refusal is not refusal
    assert world.offer(after) == 0
    assert world.take() == [after]
