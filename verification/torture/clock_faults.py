"""Faults of clocks: a gateway's machine shows another time than all others, while it runs or when it starts."""

from __future__ import annotations

import random
import time
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from verification.torture.processes import START_S, GatewayProcess, TortureError
from verification.torture.stage import Stage

AHEAD_US: Final = (8 * 86_400_000_000, -8 * 86_400_000_000, 3_600_000_000, 5_000_000, -5_000_000)
"""Eight days end every hold of a week; five seconds are soon beyond what is allowed."""
STARTED_SHARE: Final = 0.4
"""Of gateways that begin with the wrong clock; the others have it set while they run."""
NOTICED_S: Final = 20.0
"""Until the gateway says that it does not serve, and that it does again; a busy machine is slow."""
POLL_S: Final = 0.1
HEALTH_S: Final = 2.0
WRONG: Final = "this machine's clock is"
"""What a gateway says of a wrong clock."""


def set_wrong(stage: Stage, rng: random.Random) -> GatewayProcess | None:
    """Sets the clock of a gateway's machine wrong, and right again; what it should have done and did not is a finding.
    Returns the gateway, or None while none works."""
    working = [gateway for gateway in stage.gateways if gateway.listens()]
    if not working:
        return None
    gateway = rng.choice(working)
    ahead_us = rng.choice(AHEAD_US)
    try:
        if rng.random() < STARTED_SHARE:
            _start_with(stage, gateway, ahead_us)
        else:
            _set_while_it_runs(stage, gateway, ahead_us)
    finally:
        gateway.set_clock(0)
    return gateway


def _start_with(stage: Stage, gateway: GatewayProcess, ahead_us: int) -> None:
    gateway.kill()
    stage.kills["gateway"] += 1
    gateway.set_clock(ahead_us)
    gateway.start()
    until_s = time.monotonic() + START_S
    while not gateway.ended():
        if gateway.listens():
            stage.findings.append(f"{gateway.name} started with a clock that is {ahead_us / 1e6:.0f} s ahead")
            return
        if time.monotonic() > until_s:
            raise TortureError(f"{gateway.name} neither starts nor ends: {gateway.last_words()}")
        stage.stop.wait(POLL_S)
    if WRONG not in gateway.last_words() and time.monotonic() > stage.trouble_until_s:
        stage.findings.append(f"{gateway.name} with a wrong clock ended by itself: {gateway.last_words()[-300:]}")
    gateway.set_clock(0)
    gateway.start()


def _set_while_it_runs(stage: Stage, gateway: GatewayProcess, ahead_us: int) -> None:
    gateway.set_clock(ahead_us)
    if not _comes_to(stage, gateway, serving=False):
        stage.findings.append(f"{gateway.name} serves with a clock that is {ahead_us / 1e6:.0f} s ahead")
    stage.stop.wait(1.0)
    gateway.set_clock(0)
    if gateway.pid and not _comes_to(stage, gateway, serving=True):
        stage.findings.append(f"{gateway.name} does not serve again after its clock was set right")


def _comes_to(stage: Stage, gateway: GatewayProcess, *, serving: bool) -> bool:
    """Whether it says so in time; a gateway that ended does not serve."""
    until_s = time.monotonic() + NOTICED_S
    with grpc.insecure_channel(gateway.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < until_s:
            if not gateway.pid:
                return not serving
            try:
                said = stub.Check(health_pb2.HealthCheckRequest(), timeout=HEALTH_S).status
            except grpc.RpcError:
                said = health_pb2.HealthCheckResponse.UNKNOWN
            if (said == health_pb2.HealthCheckResponse.SERVING) is serving:
                return True
            stage.stop.wait(POLL_S)
    return False
