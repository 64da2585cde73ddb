"""One gateway's wrong clock does not end what belongs to all gateways on a database."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.engine.states import State
from hutong.gateway.v1 import payment_pb2 as pb
from hutong.gateway.v1 import payment_pb2_grpc as rpc
from sandbox import network as composition
from sandbox.network import Network, NetworkError
from tests.deadlines import CALL_S, wait_until
from tests.gateway.journal.shared import BEAT_S, CLOCK, Node, SharedLink, hold, open_participants
from tests.gateway.journal.test_postgres_network import options, request
from tests.gateway.wrong_clock import DAY_US, Wall

WEEK_US = 7 * DAY_US
HOLDS = 20


def health(channel: grpc.Channel) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    return int(stub.Check(health_pb2.HealthCheckRequest(service=""), timeout=CALL_S).status)


class Two:
    """Two gateways; the second one's machine has a clock that can be set."""

    def __init__(self, url: str, folder: Path, ahead_us: int = 0) -> None:
        self.books, participants = open_participants(folder)
        lock = threading.Lock()
        self.wall = Wall(ahead_us)
        self.here = Node(url, SharedLink(lock, participants)).start()
        self.holds = [hold(key=f"hold {number}", lasts_us=WEEK_US) for number in range(HOLDS)]
        assert {self.here.create(one).outcome for one in self.holds} == {"HELD"}
        self.there = Node(url, SharedLink(lock, participants), clock=self.wall.clock()).start()

    def held(self) -> int:
        stored = self.here.journal.load([one.payment_id for one in self.holds])
        return sum(one.state is State.HELD for one in stored)

    def beats(self, count: int) -> None:
        """So many heartbeats pass, at each of which holds would be ended."""
        threading.Event().wait(count * BEAT_S)

    def close(self) -> None:
        self.here.stop()
        self.there.stop()
        self.books.close()


@pytest.mark.parametrize("ahead_us", [8 * DAY_US, 30 * DAY_US])
def test_a_gateway_whose_clock_is_days_ahead_ends_nobodys_holds(url: str, tmp_path: Path, ahead_us: int) -> None:
    """Also where nothing had compared the clocks before it began."""
    two = Two(url, tmp_path, ahead_us)
    wait_until(lambda: not two.there.engine.serving)
    wait_until(lambda: two.there.engine.next_hold_look_us > CLOCK.now_us())
    two.beats(12)  # longer than HOLD_LOOK_US
    assert two.held() == HOLDS
    two.wall.ahead_us = 0
    wait_until(lambda: two.there.engine.serving)
    assert two.there.create(hold(key="again")).outcome == "HELD"
    assert two.held() == HOLDS
    two.close()


def test_a_clock_that_is_set_while_the_gateway_runs_stops_it_until_it_is_right(url: str, tmp_path: Path) -> None:
    two = Two(url, tmp_path)
    clock = two.there.neighbours.clock
    for ahead_us in (8 * DAY_US, -8 * DAY_US, 3_000_000):
        two.wall.ahead_us = ahead_us
        wait_until(lambda: not two.there.engine.serving)
        assert "this machine's clock is" in clock.wrong
        # The neighbour hears of it, and ends nothing by time either.
        wait_until(lambda: not two.here.neighbours.clock.settled)
        assert two.here.engine.serving
        two.wall.ahead_us = 0
        wait_until(lambda: two.there.engine.serving)
    assert abs(clock.now_us() - CLOCK.now_us()) < 1_000_000
    assert two.held() == HOLDS
    two.close()


def test_a_hold_whose_time_is_over_still_ends(url: str, tmp_path: Path) -> None:
    two = Two(url, tmp_path)
    short = hold(key="short", lasts_us=500_000)
    assert two.here.create(short).outcome == "HELD"
    wait_until(lambda: two.here.journal.load([short.payment_id])[0].state is State.EXPIRED)
    assert two.held() == HOLDS
    two.close()


def test_a_gateway_with_a_wrong_clock_does_not_start(url: str, tmp_path: Path, monkeypatch: Any) -> None:
    wall = Wall(8 * DAY_US)
    monkeypatch.setattr(composition, "Clock", wall.clock)
    with pytest.raises(NetworkError, match=r"this machine's clock is 8 d 0 h ahead of the database's: set it right"):
        Network.start(options(tmp_path, url))
    assert not (tmp_path / "vault").exists()
    wall.ahead_us = 0
    with Network.start(options(tmp_path, url)) as network:
        assert network.gateway.engine.serving
        with grpc.insecure_channel(network.target) as channel:
            wall.ahead_us = -DAY_US
            wait_until(lambda: health(channel) == health_pb2.HealthCheckResponse.NOT_SERVING)
            token = network.wallet_tokens["wallet-01"].reveal()
            stub = rpc.PaymentServiceStub(channel)
            with pytest.raises(grpc.RpcError) as refused:
                stub.CreatePayment(request(token, "key"), timeout=CALL_S)
            error: Any = refused.value
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "clock of this gateway's machine" in error.details()
            wall.ahead_us = 0
            wait_until(lambda: health(channel) == health_pb2.HealthCheckResponse.SERVING)
            paid = stub.CreatePayment(request(token, "key"), timeout=CALL_S)
            assert paid.payment.state == pb.PAYMENT_STATE_SUCCEEDED
