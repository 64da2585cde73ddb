"""Waiting for a face service that still loads its search, in one place for commands, demonstration and tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

import grpc

from hutong_contract.errors import HutongError, Reason, from_rpc_error

READY_S: Final = 300.0
"""Longest wait, in seconds. Kernels are compiled in some 5 seconds of a processor that has nothing else to do."""
PAUSE_MIN_S: Final = 0.2
PAUSE_MAX_S: Final = 3.0
"""Bounds of the pause between two attempts, whatever the service asks for."""

Answer = TypeVar("Answer")


def when_ready(
    call: Callable[[], Answer], waiting: Callable[[float], None] = lambda _: None, limit_s: float = READY_S
) -> Answer:
    """Makes a call again and again while it is refused with FACE_NOT_READY, which does nothing. `waiting` is told
    before each pause how many seconds it may still take. Raises what the call raises, the last refusal included."""
    ends = time.monotonic() + limit_s
    while True:
        try:
            return call()
        except (HutongError, grpc.RpcError) as error:
            known = error if isinstance(error, HutongError) else from_rpc_error(error)
            if known is None or known.reason != Reason.ERROR_REASON_FACE_NOT_READY or time.monotonic() > ends:
                raise
            left_s = known.retry_us / 1e6
            waiting(left_s)
            time.sleep(min(PAUSE_MAX_S, max(PAUSE_MIN_S, left_s)))
