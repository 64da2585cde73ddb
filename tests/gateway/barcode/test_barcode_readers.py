"""Pictures of strangers: under limits, killable, one at a time, and never in the way of anybody else."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
import psutil
import pytest
import segno

from gateway.barcode import readers
from gateway.barcode.files import PIXELS_MAX, require_readable
from gateway.barcode.found import Effort
from gateway.barcode.raster import picture, png
from gateway.barcode.readers import Limits, Reader, Readers
from gateway.barcode.server import BarcodeServicer
from gateway.barcode.symbols import modules_of, render_png
from hutong.gateway.v1 import barcode_pb2 as pb
from hutong.gateway.v1 import barcode_pb2_grpc as rpc
from hutong_contract.errors import HutongError, from_rpc_error
from tests.deadlines import CALL_S, START_S, wait_until
from tests.gateway.barcode.hostile import beside_finder_patterns, claiming, encoded, finder_patterns

pytestmark = pytest.mark.process

TIGHT: Final = Limits(cpu_s=1, wall_s=10.0)
ENDLESS: Final = Limits(cpu_s=600, wall_s=600.0)
BOMB: Final = finder_patterns(3_000)
"""Keeps zxing-cpp busy for 20 s of computing, and OpenCV for minutes."""
WORKER: Final = "gateway.barcode.worker"


def workers(of: psutil.Process | None = None) -> list[psutil.Process]:
    found = []
    for child in (of or psutil.Process()).children(recursive=True):
        try:
            if WORKER in child.cmdline():
                found.append(child)
        except psutil.Error:
            continue
    return found


def busy(process: psutil.Process) -> bool:
    """Whether a worker computes: its limit of processor time is set when a job begins."""
    try:
        return bool(process.rlimit(psutil.RLIMIT_CPU)[0] != psutil.RLIM_INFINITY)
    except psutil.Error:
        return False


def symbol(text: str, **how: Any) -> bytes:
    made = segno.make(text, micro=False, **how)
    dark = np.pad(np.array([[bool(m) for m in row] for row in made.matrix], dtype=np.bool_), 4)
    return png(picture(dark, 8))


def test_a_picture_of_finder_patterns_ends_at_its_limit_and_the_next_is_read() -> None:
    with Reader(TIGHT) as reader:
        started = time.monotonic()
        with pytest.raises(HutongError, match="within 1 s of computing"):
            reader.read(BOMB, Effort.THOROUGH)
        assert time.monotonic() - started < CALL_S
        assert [found.text for found in reader.read(render_png("after")).symbols] == ["after"]
    assert not workers()


def test_what_was_found_before_the_limit_is_kept() -> None:
    """zxing-cpp reads the one symbol at once; OpenCV then stays with the finder patterns beside it."""
    with Reader(Limits(cpu_s=3, wall_s=CALL_S)) as reader:
        reading = reader.read(beside_finder_patterns("found"), Effort.THOROUGH)
    assert [found.text for found in reading.symbols] == ["found"]
    assert not reading.complete


def test_memory_is_bounded() -> None:
    big = encoded(".png", np.zeros((12_000, 12_000), dtype=np.uint8))
    with Reader(Limits(memory_bytes=60_000_000)) as reader:
        with pytest.raises(HutongError, match=r"unpacked|memory|nothing was read"):
            reader.read(big)
        assert [found.text for found in reader.read(render_png("after")).symbols] == ["after"]


def test_a_child_that_dies_is_an_error_of_its_picture_and_is_replaced() -> None:
    with Reader(ENDLESS) as reader:
        assert reader.read(render_png("before")).symbols
        (child,) = workers()
        child.kill()
        child.wait(CALL_S)
        assert [found.text for found in reader.read(render_png("after")).symbols] == ["after"]
        timer = threading.Timer(0.2, reader.stop)
        timer.start()
        with pytest.raises(HutongError, match="nothing was read"):
            reader.read(BOMB)
        timer.join()


def test_a_child_is_replaced_between_pictures_without_losing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its number of pictures, and when it was idle and is stopped just before the next picture comes."""
    monkeypatch.setattr(readers, "JOBS_MAX", 2)
    image, seen = render_png("each"), set()
    with Reader() as reader:
        for number in range(7):
            assert [found.text for found in reader.read(image).symbols] == ["each"]
            seen |= {child.pid for child in workers()}
            if number == 4:
                reader.stop()
    assert len(seen) >= 3


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("今", {"mode": "kanji", "error": "m"}),
        ("最佳运输", {"mode": "hanzi"}),
        ("最佳运输", {"mode": "byte", "encoding": "gb18030", "eci": True}),
        ("00020126BRASÍLIA", {"mode": "byte", "encoding": "latin-1", "eci": False}),
        ("00020126BRASÍLIA", {"mode": "byte", "encoding": "latin-1", "eci": True}),
        ("日本橋", {"mode": "byte", "encoding": "shift-jis", "eci": True}),
        ("日本橋", {"mode": "byte", "encoding": "shift-jis", "eci": False}),
        ("서울", {"mode": "byte", "encoding": "euc-kr", "eci": True}),
    ],
)
def test_every_character_set_is_read_by_the_whole_ladder(text: str, how: dict[str, Any]) -> None:
    with Reader() as reader:
        reading = reader.read(symbol(text, **how), Effort.THOROUGH)
    assert [found.text for found in reading.symbols] == [text]
    assert reading.complete


def served(use: Callable[[rpc.BarcodeServiceAsyncStub], object], limits: Limits, **bounds: int) -> None:
    async def run() -> None:
        server = grpc.aio.server()
        servicer = BarcodeServicer(readers=Readers(limits=limits, **bounds))
        rpc.add_BarcodeServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                await use(rpc.BarcodeServiceStub(channel))
        finally:
            await server.stop(None)
            servicer.close()

    asyncio.run(run())
    wait_until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in workers()))


async def until(true: Callable[[], bool]) -> None:
    await asyncio.wait_for(asyncio.to_thread(wait_until, true), CALL_S + 5)


def test_a_caller_that_leaves_ends_the_work() -> None:
    async def use(stub: rpc.BarcodeServiceAsyncStub) -> None:
        call = stub.Scan(pb.ScanRequest(image=BOMB))
        await until(lambda: any(busy(child) for child in workers()))
        call.cancel()
        await until(lambda: not any(busy(child) for child in workers()))
        found = (await stub.Scan(pb.ScanRequest(image=render_png("after")))).symbols
        assert [one.text for one in found] == ["after"]

    served(use, ENDLESS)


def test_a_callers_deadline_ends_the_work() -> None:
    async def use(stub: rpc.BarcodeServiceAsyncStub) -> None:
        await stub.Scan(pb.ScanRequest(image=render_png("warm")))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Scan(pb.ScanRequest(image=BOMB), timeout=0.5)
        assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: not any(busy(child) and child.is_running() for child in workers()))

    served(use, ENDLESS, count=1)


def test_other_calls_do_not_wait_behind_pictures_and_pictures_wait_within_a_bound() -> None:
    async def use(stub: rpc.BarcodeServiceAsyncStub) -> None:
        reads = [asyncio.ensure_future(stub.Scan(pb.ScanRequest(image=BOMB))) for _ in range(2)]
        await until(lambda: any(busy(child) for child in workers()))
        refused: list[asyncio.Future[pb.ScanResponse]] = []
        while not refused:
            done, _ = await asyncio.wait(reads, timeout=0.05)
            refused = [one for one in done if one.exception() is not None]
            if not refused and len(reads) < 8:
                reads.append(asyncio.ensure_future(stub.Scan(pb.ScanRequest(image=BOMB))))
        failure = refused[0].exception()
        assert isinstance(failure, grpc.RpcError)
        error = from_rpc_error(failure)
        assert error is not None
        assert error.name == "OVERLOADED"
        assert error.retry_us > 0
        decoded = await stub.Decode(pb.DecodeRequest(payload="6612345678901234567"), timeout=CALL_S)
        assert decoded.barcode.scheme == "hutong"
        assert (await stub.Render(pb.RenderRequest(text="x"), timeout=CALL_S)).symbol
        assert sum(not one.done() for one in reads) == 3
        for one in reads:
            one.cancel()
        await asyncio.gather(*reads, return_exceptions=True)

    served(use, ENDLESS, count=1, waiting_max=2)


def test_a_costly_picture_and_a_broken_one_are_typed_errors_over_grpc() -> None:
    async def use(stub: rpc.BarcodeServiceAsyncStub) -> None:
        for data in (BOMB, render_png("x")[:60], b"\xff\xd8\xff"):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.Scan(pb.ScanRequest(image=data, thorough=True))
            error = from_rpc_error(raised.value)
            assert error is not None
            assert (error.name, error.fields["field"]) == ("FIELD_INVALID", "image")
            assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT

    served(use, TIGHT)


def test_one_bad_file_never_stops_the_others_and_the_exit_status_says_so(tmp_path: Path) -> None:
    kanji, bad, good = tmp_path / "kanji.png", tmp_path / "bad.png", tmp_path / "good.png"
    kanji.write_bytes(symbol("今", mode="kanji", error="m"))
    bad.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\x00" * 8)
    good.write_bytes(render_png("good"))
    files = [kanji, bad, tmp_path / "none.png", tmp_path, good]
    command = [sys.executable, "-m", "command.main", "barcode", "scan", "--json", "--thorough"]
    command += map(str, files)
    ran = subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False)
    shapes = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [[code["text"] for code in shape["codes"]] for shape in shapes] == [["今"], [], [], [], ["good"]]
    assert [bool(shape["error"]) for shape in shapes] == [False, True, True, True, False]
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_command_can_be_stopped_while_it_reads(tmp_path: Path, how: signal.Signals) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(BOMB)
    command = [sys.executable, "-m", "command.main", "barcode", "scan", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        of = psutil.Process(process.pid)
        wait_until(lambda: any(busy(child) for child in workers(of)))
        children = workers(of)
        process.send_signal(how)
        process.communicate(timeout=CALL_S)
    _, alive = psutil.wait_procs(children, CALL_S)
    assert not alive


@pytest.mark.parametrize("extension", [".png", ".jpg", ".bmp", ".tiff", ".webp"])
def test_a_picture_that_claims_too_many_pixels_is_not_unpacked(extension: str) -> None:
    data = encoded(extension, np.full((40, 60, 3), 200, dtype=np.uint8), *([64, 80] if extension == ".webp" else []))
    assert require_readable(data) == (60, 40)
    side = 16_383
    assert side * side > PIXELS_MAX
    with pytest.raises(HutongError, match=f"{side} by {side} pixels"):
        require_readable(claiming(data, side))


def test_fill_bytes_before_jpeg_markers_are_read() -> None:
    plain = encoded(".jpg", picture(modules_of("filled"), 8))
    filled, at = bytearray(b"\xff\xd8"), 2
    while plain[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(plain[at + 2 : at + 4])
        filled += b"\xff" * 5 + plain[at:end]
        at = end
    filled += b"\xff" * 3 + plain[at:]
    with Reader() as reader:
        for data in (bytes(filled), b"\xff\xff" + plain):
            assert [found.text for found in reader.read(data).symbols] == ["filled"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + b"\x00" * 90, "HEIC.*JPEG or PNG"),
        (b"\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00mif1heicmiaf" + b"\x00" * 90, "HEIC"),
        (b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmiaf" + b"\x00" * 90, "AVIF"),
        (b"%PDF-1.7\n", "PDF document"),
        (b'<?xml version="1.0"?><svg/>', "XML document"),
        (b"GIF89a" + b"\x00" * 20, "GIF"),
        (b"v/1\x01", "not a picture in a format"),
        (b"", "not a picture in a format"),
    ],
)
def test_formats_that_are_not_read_are_named(data: bytes, told: str) -> None:
    with Reader() as reader, pytest.raises(HutongError, match=told):
        reader.read(data)
