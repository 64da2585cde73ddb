"""A face service on a real gRPC server on loopback, in a thread with its own loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from facepay.operators import Operators
from facepay.server import FaceServicer
from facepay.service import FaceService
from hutong.facepay.v1 import face_pb2_grpc
from tests.deadlines import CALL_S


@contextmanager
def serving(service: FaceService, operators: Operators) -> Iterator[str]:
    """The address that it listens on."""
    started: dict[str, Any] = {}
    ready = threading.Event()

    async def serve() -> None:
        server = grpc.aio.server()
        servicer = FaceServicer(service, operators)
        face_pb2_grpc.add_FaceServiceServicer_to_server(servicer, server)
        started["port"] = server.add_insecure_port("127.0.0.1:0")
        started["stop"], started["loop"] = asyncio.Event(), asyncio.get_running_loop()
        await server.start()
        ready.set()
        await started["stop"].wait()
        await server.stop(0)
        servicer.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(CALL_S)
    yield f"127.0.0.1:{started['port']}"
    started["loop"].call_soon_threadsafe(started["stop"].set)
    thread.join()
