"""Connections that say nothing are ended on both fronts, and there are never more than a bound."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import grpc
import pytest
from pygrpc_native import NativeGrpcFront

from gateway.calls import METHODS
from gateway.fronts.connections import SILENT_S, SWEEP_S, Connections
from gateway.fronts.limits import CONNECTIONS_MAX, connections_within
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_client.client import HutongClient
from hutong_client.errors import CallError
from hutong_client.options import ClientOptions, RetryOptions
from hutong_contract.confinement import environment
from hutong_contract.errors import HutongError, Reason, from_rpc_error
from hutong_contract.limits import CALLER_CHARACTERS_MAX
from hutong_contract.names import CALLER_METADATA
from sandbox.network import Network
from sandbox.options import NetworkOptions
from tests.deadlines import CALL_S, START_S, wait_until

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What a client begins with: 24 bytes, and an empty SETTINGS frame."""
ONE_MORE = b"\0\0\x08\x06\0\0\0\0\0" + bytes(8)
"""A PING frame."""

FEW_FILES = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
from command.main import main
main()
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux about its sockets")


@pytest.fixture
def port() -> Iterator[int]:
    front = NativeGrpcFront("127.0.0.1:0", [(METHODS[0], False)], io_threads=1)
    front.start()
    yield front.bound_port
    front.close()


def connect(stack: ExitStack, port: int, said: bytes = b"") -> socket.socket:
    one = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=CALL_S))
    one.sendall(said)
    return one


def is_open(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        while one.recv(65_536):
            pass
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@linux
def test_what_says_nothing_is_ended_and_what_began_is_not(port: int, caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as stack:
        silent = [connect(stack, port) for _ in range(20)] + [connect(stack, port, PREFACE[:10])]
        begun = [connect(stack, port, PREFACE) for _ in range(3)]
        connections = stack.enter_context(closing(Connections(port, 1000)))
        wait_until(lambda: (connections.sweep(0.0), len(connections))[1] == len(silent) + len(begun))
        assert connections.sweep(SILENT_S - 1) == 0
        with caplog.at_level(logging.WARNING):
            assert connections.sweep(SILENT_S) == len(silent)
        assert "21 connections" in caplog.text
        wait_until(lambda: not any(is_open(one) for one in silent))
        assert all(is_open(one) for one in begun)
        late = connect(stack, port)
        wait_until(lambda: (connections.sweep(2 * SILENT_S), len(connections))[1] == len(begun) + 1)
        assert is_open(late), "its time begins when it comes"


@linux
def test_too_many_connections_end_those_that_said_least(port: int) -> None:
    with ExitStack() as stack:
        busy = [connect(stack, port, PREFACE + 4 * ONE_MORE) for _ in range(5)]
        idle = [connect(stack, port, PREFACE) for _ in range(20)]
        connections = stack.enter_context(closing(Connections(port, 15)))
        wait_until(lambda: (connections.sweep(0.0), len(connections))[1] == len(busy) + len(idle))
        assert connections.ended == 0, "these have only come"
        assert connections.sweep(SWEEP_S) == 10
        wait_until(lambda: sum(is_open(one) for one in idle) == 10)
        assert all(is_open(one) for one in busy)
        assert connections.sweep(2 * SWEEP_S) == 0


@linux
def test_other_sockets_and_files_are_left_alone(port: int, tmp_path: Path) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        other = connect(stack, listener.getsockname()[1])
        here, there = socket.socketpair()
        stack.enter_context(here)
        stack.enter_context(there)
        stack.enter_context((tmp_path / "file").open("w"))
        connections = stack.enter_context(closing(Connections(port, 0)))
        for now_s in (0.0, 2 * SILENT_S):
            assert connections.sweep(now_s) == 0
            assert len(connections) == 0
        assert is_open(other)
        assert is_open(here)


@pytest.mark.parametrize(("files", "most"), [(1_024, 512), (65_536, CONNECTIONS_MAX), (8_192, 4_096)])
def test_connections_leave_a_process_half_of_its_files(files: int, most: int) -> None:
    assert connections_within(files) == most


@linux
@pytest.mark.process
@pytest.mark.parametrize("front", ["native", "aio"])
def test_callers_get_in_beside_more_silent_connections_than_there_are_files(front: str, tmp_path: Path) -> None:
    """1,100 connections that say nothing, to a gateway that may open 1,024 files; within the time that they have, all
    callers that come are served again."""
    data = tmp_path / "data"
    with ExitStack() as stack:
        gateway = subprocess.Popen(
            [sys.executable, "-c", FEW_FILES, "up", "--data", str(data), "--listen", "127.0.0.1:0", "--front", front],
            env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        stack.callback(gateway.wait)
        stack.callback(gateway.kill)
        wait_until((data / "network.json").exists, START_S)
        target = json.loads((data / "network.json").read_text())["target"]
        port = int(target.rsplit(":", 1)[1])
        silent = [connect(stack, port) for _ in range(1_100)]

        def answered() -> bool:
            """Whether a caller that comes now is told that there is no such payment."""
            with HutongClient(
                target, ClientOptions(retry=RetryOptions(attempts_max=1), deadline_s=CALL_S / 4)
            ) as client:
                try:
                    client.get_payment("00000000-0000-7000-8000-000000000000")
                except HutongError as error:
                    return error.reason == Reason.ERROR_REASON_PAYMENT_NOT_FOUND
                except CallError:
                    return False
            return False

        wait_until(answered)
        wait_until(lambda: not any(is_open(one) for one in silent))
        assert answered()


def test_half_a_handshake_is_ended_on_the_aio_front() -> None:
    """The same options as the gateway's, in less time."""

    async def run() -> None:
        server = grpc.aio.server(options=[("grpc.server_handshake_timeout_ms", 200)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PREFACE[:10])
        await asyncio.wait_for(reader.read(), CALL_S)  # until it is ended
        writer.close()
        await server.stop(0)

    asyncio.run(run())


@pytest.mark.process
@pytest.mark.parametrize("front", ["native", "aio"])
def test_the_name_of_a_caller_is_bounded(front: str, tmp_path: Path) -> None:
    options = NetworkOptions(data=tmp_path, listen="127.0.0.1:0", front=front)
    with Network.start(options) as network, grpc.insecure_channel(network.target) as channel:
        for method in (METHODS[0], METHODS[5]):
            call = channel.unary_unary(method)
            for name, refused in (("x" * CALLER_CHARACTERS_MAX, False), ("x" * (CALLER_CHARACTERS_MAX + 1), True)):
                with pytest.raises(grpc.RpcError) as caught:
                    call(b"", timeout=CALL_S, metadata=((CALLER_METADATA, name),))
                error = from_rpc_error(caught.value)
                assert error is not None
                assert (error.fields.get("field") == CALLER_METADATA) is refused
        watch = channel.unary_stream(METHODS[7])
        stream = watch(pb.WatchPaymentsRequest().SerializeToString(), metadata=((CALLER_METADATA, "x" * 7_000),))
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        error = from_rpc_error(caught.value)
        assert error is not None
        assert error.fields["field"] == CALLER_METADATA


@pytest.mark.process
@pytest.mark.parametrize("front", ["native", "aio"])
def test_a_connection_whose_other_end_is_gone_is_ended(
    front: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has begun, and answers no ping, as after a cut line; a client that answers stays."""
    for module in ("gateway.server", "gateway.fronts.native"):
        monkeypatch.setattr(f"{module}.KEEPALIVE_MS", 500)
        monkeypatch.setattr(f"{module}.KEEPALIVE_TIMEOUT_MS", 500)
    options = NetworkOptions(data=tmp_path, listen="127.0.0.1:0", front=front)
    with ExitStack() as stack:
        network = stack.enter_context(Network.start(options))
        port = int(network.target.rsplit(":", 1)[1])
        gone = [connect(stack, port, PREFACE) for _ in range(10)]
        channel = stack.enter_context(grpc.insecure_channel(network.target))
        stream = channel.unary_stream(METHODS[7])(pb.WatchPaymentsRequest(from_now=True).SerializeToString())
        next(stream)
        wait_until(lambda: not any(is_open(one) for one in gone))
        assert stream.is_active(), "its client answers pings"
        stream.cancel()
