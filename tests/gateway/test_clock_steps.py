"""One gateway on a file: its machine's clock is set by days, and back, and nothing is lost or kept waiting by that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.engine.states import State
from hutong.gateway.v1 import payment_pb2 as pb
from hutong.gateway.v1 import payment_pb2_grpc as rpc
from hutong.tokenization.v1 import token_pb2
from sandbox import network as composition
from sandbox.network import Network
from sandbox.options import NetworkOptions
from tests.deadlines import CALL_S, wait_until
from tests.gateway.engine.world import World
from tests.gateway.wrong_clock import DAY_US, Wall

WEEK_S = 7 * 86_400


class Paid:
    """A network on a file, on a machine whose clock can be set."""

    def __init__(self, network: Network, stub: Any) -> None:
        self.network = network
        self._stub = stub
        self._count = 0

    def pay(self, payer: pb.RoutingKey | None = None, *, hold_s: int = 0) -> Any:
        self._count += 1
        token = self.network.wallet_tokens["wallet-01"].reveal()
        asked = pb.CreatePaymentRequest(
            idempotency_key=f"key {self._count}",
            payer=payer or pb.RoutingKey(token=token_pb2.TokenKey(token=token)),
            payee=pb.RoutingKey(merchant=pb.MerchantKey(merchant_id="m1001")),
            amount_minor=100,
            currency="CNY",
        )
        if hold_s:
            asked.hold.lifetime.seconds = hold_s
        return self._stub.CreatePayment(asked, timeout=CALL_S).payment

    def code(self) -> pb.RoutingKey:
        name = self.network.wallet_tokens["wallet-01"]
        return pb.RoutingKey(payment_code=self.network.tokens.reserve_code(name).code.reveal())

    def state(self, payment_id: str) -> int:
        return int(self._stub.GetPayment(pb.GetPaymentRequest(payment_id=payment_id), timeout=CALL_S).payment.state)


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def start(tmp_path: Path, wall: Wall, monkeypatch: Any) -> Iterator[Any]:
    monkeypatch.setattr(composition, "Clock", wall.clock)
    opened: list[Any] = []

    def begin() -> Paid:
        network = Network.start(NetworkOptions(data=tmp_path, seed=4, listen="127.0.0.1:0"))
        channel = grpc.insecure_channel(network.target)
        opened.extend((network, channel))
        return Paid(network, rpc.PaymentServiceStub(channel))

    yield begin
    for one in reversed(opened):
        one.close()


def test_a_clock_that_leaps_days_ahead_and_back_ends_no_hold(start: Any, wall: Wall) -> None:
    paid = start()
    held = paid.pay(hold_s=WEEK_S)
    assert held.state == pb.PAYMENT_STATE_HELD
    wall.ahead_us = 8 * DAY_US
    clock = paid.network.clock
    wait_until(lambda: not clock.settled)
    looked_us = paid.network.gateway.engine.next_hold_look_us
    wait_until(lambda: paid.network.gateway.engine.next_hold_look_us > looked_us)
    assert paid.pay().state == pb.PAYMENT_STATE_SUCCEEDED
    assert paid.pay(paid.code()).state == pb.PAYMENT_STATE_SUCCEEDED
    assert paid.state(held.payment_id) == pb.PAYMENT_STATE_HELD
    wall.ahead_us = 0
    wait_until(lambda: clock.settled)
    assert paid.pay(paid.code()).state == pb.PAYMENT_STATE_SUCCEEDED
    assert paid.state(held.payment_id) == pb.PAYMENT_STATE_HELD


def test_codes_are_good_before_and_after_a_fast_clock_is_corrected(start: Any, wall: Wall) -> None:
    wall.ahead_us = 8 * DAY_US
    paid = start()
    assert paid.pay(paid.code()).state == pb.PAYMENT_STATE_SUCCEEDED
    wall.ahead_us = 0
    assert paid.pay(paid.code()).state == pb.PAYMENT_STATE_SUCCEEDED
    wait_until(lambda: paid.network.clock.stepped_us)
    assert abs(paid.network.clock.now_us() - wall.clock().now_us()) < 1_000_000
    assert paid.pay(paid.code()).state == pb.PAYMENT_STATE_SUCCEEDED
    assert paid.pay().create_time.seconds <= wall.clock().now_us() // 1_000_000


@pytest.mark.parametrize("days", [8, -8])
def test_payments_in_flight_keep_the_time_that_they_had_left(tmp_path: Path, days: int) -> None:
    world = World(tmp_path)
    world.lost = lambda _: True
    caller = world.create()
    world.run(seconds=1)
    (payment,) = world.core.book.values()
    before_us = payment.deadline_us - world.now_us
    world.now_us += days * DAY_US
    world.core.shift(days * DAY_US)
    assert payment.deadline_us - world.now_us == before_us
    world.lost = lambda _: False
    world.run(seconds=10)  # the leg, which was lost, is asked about as if nothing had happened
    assert caller.state is State.FAILED
    assert caller.payment.reason == "no answer"
    world.close()
