"""The native front hears every call, whatever came before it, and survives a defect of its own or of its library."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pygrpc_native import NativeGrpcFront

from gateway.admission import TICK_MAX, WAITING_MIN, Gate
from gateway.budgets import QueryBudgets, QueryLimits
from gateway.calls import CREATE, GET, METHODS, RECEIPT
from gateway.engine.core import Core
from gateway.engine.inbox import Inbox
from gateway.engine.ports import Call
from gateway.fronts import native
from gateway.fronts.native import NativeFront
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError, Reason, from_rpc_error
from hutong_contract.limits import MESSAGE_BYTES_MAX
from sandbox.network import Network
from sandbox.options import NetworkOptions

WAIT_S = 60.0


def wait_until(true: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end_s, what
        time.sleep(0.005)


class FaultyLibrary:
    """The real HTTP/2 library, which cannot receive while `broken` says so."""

    broken = False
    looks = 0
    real = NativeGrpcFront

    def __init__(self, *args: Any, **named: Any) -> None:
        self._real = self.real(*args, **named)

    def recv_batch_details(self, most: int, wait_ms: int) -> Any:
        type(self).looks += 1
        if type(self).broken:
            raise OSError("the library is broken")
        return self._real.recv_batch_details(most, wait_ms)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class FaultyGate(Gate):
    """The real gate, with a defect while `broken` says so."""

    broken = False

    def offer(self, calls: Any, payments: int) -> bool:
        if self.broken:
            raise ZeroDivisionError("secret detail")
        return super().offer(calls, payments)


class Scene:
    """A front without an engine: the test takes what is for it."""

    def __init__(self, folder: Path) -> None:
        self.inbox = Inbox[Any]()
        self.gate = FaultyGate(self.inbox)
        self.queried: list[Call] = []
        self.query_fails = False
        budgets = QueryBudgets(QueryLimits(1e9, 10**9))
        self.front = NativeFront(
            "127.0.0.1:0", self.gate, budgets, self.query, lambda *_: None, str(folder / "nobody.sock")
        )
        self.front.start()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.front.port}")

    def query(self, call: Call) -> None:
        if self.query_fails:
            raise KeyError("secret detail")
        self.queried.append(call)
        call.answer(b"")

    def begin(self, method: int, payload: bytes = b"") -> Any:
        return self.channel.unary_unary(METHODS[method]).future(payload, timeout=WAIT_S, wait_for_ready=True)

    def take(self) -> list[Call]:
        """Calls for the engine, once there are some; it looks only when it is woken."""
        self.inbox.wait(WAIT_S)
        return self.gate.poll(4096)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(FaultyLibrary, "broken", False)
    monkeypatch.setattr(native, "NativeGrpcFront", FaultyLibrary)
    one = Scene(tmp_path)
    yield one
    FaultyLibrary.broken = False
    one.channel.close()
    one.front.close()


def told(call: Any) -> HutongError:
    error = call.exception(WAIT_S)
    assert isinstance(error, grpc.RpcError)
    typed = from_rpc_error(error)
    assert typed is not None
    assert "secret" not in str(error)
    return typed


@pytest.mark.parametrize("before", ["a query", "a query above its size", "a call above its size", "a caller who left"])
def test_what_is_not_the_engines_does_not_deafen_the_front(scene: Scene, before: str) -> None:
    """The engine sleeps, and is woken by calls alone: whatever came before one, it is heard."""
    scene.front.idle()
    for _ in range(3):
        if before == "a query":
            assert scene.begin(GET).result(WAIT_S) == b""
        elif before == "a caller who left":
            left = scene.channel.unary_unary(METHODS[GET]).future(b"", timeout=WAIT_S)
            left.cancel()
        else:
            method = CREATE if "call" in before else RECEIPT
            error = told(scene.begin(method, bytes(MESSAGE_BYTES_MAX + 1)))
            assert error.name == "MESSAGE_TOO_LARGE"
            assert error.fields == {"most_bytes": str(MESSAGE_BYTES_MAX)}
    asked = scene.begin(CREATE)
    (call,) = scene.take()
    call.answer(b"done")
    assert asked.result(WAIT_S) == b"done"


def test_a_defect_in_one_call_is_told_to_that_caller_alone(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.front.idle()
    scene.query_fails = True
    error = told(scene.begin(GET))
    assert error.name == "INTERNAL"
    (record,) = [record for record in caplog.records if record.exc_info]
    assert error.fields["incident"] in record.getMessage()
    scene.query_fails, scene.gate.broken = False, True
    assert told(scene.begin(CREATE)).name == "INTERNAL"
    scene.gate.broken = False
    assert scene.begin(GET).result(WAIT_S) == b""
    asked = scene.begin(CREATE)
    scene.take()[0].answer(b"done")
    assert asked.result(WAIT_S) == b"done"


def test_a_library_that_fails_is_tried_again_and_said(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.front.idle()
    FaultyLibrary.broken = True
    wait_until(lambda: scene.front.failure is not None, "the failure shows")
    looks = FaultyLibrary.looks
    wait_until(lambda: FaultyLibrary.looks > looks + 2, "the thread goes on")
    scene.front.poll(1)  # the engine's thread survives it too
    assert [record.levelno for record in caplog.records].count(logging.CRITICAL) == 1
    assert "the library is broken" in caplog.text
    FaultyLibrary.broken = False
    asked = scene.begin(CREATE)
    scene.take()[0].answer(b"done")
    assert asked.result(WAIT_S) == b"done"
    assert scene.front.failure is None


def test_a_failure_in_an_overload_leaves_nothing_changed(scene: Scene) -> None:
    interval_s = sys.getswitchinterval()
    try:
        waiting: list[Any] = []
        while sys.getswitchinterval() == interval_s:
            # More than a tick takes, until the gate is full and the front is left to its thread.
            waiting += [scene.begin(CREATE) for _ in range(2 * TICK_MAX)]
            scene.front.poll(0)
        FaultyLibrary.broken = True
        wait_until(lambda: scene.front.failure is not None, "the failure shows")
        wait_until(lambda: sys.getswitchinterval() == interval_s, "Python's own interval is back")
        FaultyLibrary.broken = False
        wait_until(lambda: scene.front.failure is None, "it is tried again")
        while calls := scene.gate.poll(4096):
            for call in calls:
                call.answer(b"")
        scene.front.idle()
        asked = scene.begin(CREATE, b"last")
        calls = scene.take()
        while not any(call.method == CREATE and call.payload == b"last" for call in calls):
            scene.front.idle()
            calls = scene.take()
        calls[-1].answer(b"done")
        assert asked.result(WAIT_S) == b"done"
    finally:
        sys.setswitchinterval(interval_s)


def test_after_the_engines_end_callers_are_told_at_once(scene: Scene) -> None:
    waiting = [scene.begin(CREATE) for _ in range(3)]
    while scene.gate.room > WAITING_MIN - 3:
        scene.front.idle()  # as the engine does each time that it was woken
    scene.front.end(HutongError(Reason.ERROR_REASON_DRAINING))
    assert {told(call).name for call in waiting} == {"DRAINING"}
    assert {told(scene.begin(CREATE)).name for _ in range(3)} == {"DRAINING"}
    assert scene.begin(GET).result(WAIT_S) == b""


# -- a whole gateway -------------------------------------------------------------------------------------------


@pytest.fixture(params=["native", "aio"])
def network(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    monkeypatch.setattr(FaultyLibrary, "broken", False)
    monkeypatch.setattr(native, "NativeGrpcFront", FaultyLibrary)
    options = NetworkOptions(data=tmp_path, seed=3, listen="127.0.0.1:0", front=str(request.param))
    with Network.start(options) as one:
        yield one
        FaultyLibrary.broken = False


def health(channel: grpc.Channel, wanted: int) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for said in stub.Watch(health_pb2.HealthCheckRequest(), timeout=WAIT_S):
        if said.status == wanted:
            return


SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def test_health_follows_the_front(network: Network) -> None:
    if network.gateway.options.front == "aio":
        pytest.skip("gRPC's own server receives the calls")
    with grpc.insecure_channel(network.target) as channel:
        health(channel, SERVING)
        FaultyLibrary.broken = True
        health(channel, NOT_SERVING)
        FaultyLibrary.broken = False
        health(channel, SERVING)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_defect_of_the_engine_is_told_to_who_waits_and_who_comes(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = pb.CreatePaymentRequest(
        idempotency_key="k",
        payer=pb.RoutingKey(payment_code="6600000000000000000"),
        payee=pb.RoutingKey(merchant=pb.MerchantKey(merchant_id="m1001")),
        amount_minor=5,
        currency="CNY",
    )

    def defect(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret detail")

    with grpc.insecure_channel(network.target) as channel:
        health(channel, SERVING)
        monkeypatch.setattr(Core, "missing", defect)
        call = channel.unary_unary(METHODS[CREATE])
        first = call.future(request.SerializeToString(), timeout=WAIT_S)
        wait_until(lambda: network.failed, "the engine ends")
        # The first may have been refused before the engine met its defect: its code is unknown.
        assert told(first).name in ("INTERNAL", "CODE_UNKNOWN")
        assert told(call.future(request.SerializeToString(), timeout=WAIT_S)).name == "INTERNAL"
        health(channel, NOT_SERVING)
