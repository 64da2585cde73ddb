"""The baseline: an empty handler on grpc.aio, in a process of its own, which says what CPU it used."""

from __future__ import annotations

import asyncio
import time
from multiprocessing.connection import Connection
from typing import Any, Final

import grpc
import uvloop

PATH: Final = "/hutong.loadtest.Echo/Say"


def serve(pipe: Connection) -> None:
    """Sends the port, then the process's CPU seconds for each message that arrives, until None arrives."""
    uvloop.run(_serve(pipe))


async def _serve(pipe: Connection) -> None:
    async def say(payload: bytes, _: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        return payload

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    _, service, method = PATH.split("/")
    handlers = {method: grpc.unary_unary_rpc_method_handler(say)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    pipe.send(port)
    done = asyncio.Event()

    def asked() -> None:
        if pipe.recv() is None:
            done.set()
        else:
            pipe.send(time.process_time())

    asyncio.get_running_loop().add_reader(pipe.fileno(), asked)
    await done.wait()
    await server.stop(None)
