"""Serves hutong.gateway.v1.BarcodeService on grpc.aio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import grpc

from gateway.barcode import messages
from gateway.barcode.build import HUTONG, build_merchant_code
from gateway.barcode.decode import decode
from gateway.barcode.found import Effort
from gateway.barcode.placard import render_placard
from gateway.barcode.readers import Readers
from gateway.barcode.routing import EMPTY, Directory
from gateway.barcode.symbols import QR, render_png, render_svg, render_terminal
from gateway.barcode.translate import translate
from hutong.gateway.v1 import barcode_pb2 as pb
from hutong.gateway.v1 import barcode_pb2_grpc as rpc
from hutong_contract.errors import HutongError, Reason
from hutong_contract.limits import PAYLOADS_MAX
from hutong_contract.serving import abort

DRAWN_AT_ONCE_MAX: Final = 2
"""Symbols drawn at the same time; each takes a thread and up to some hundred megabytes."""
DRAWN_WAITING_MAX: Final = 32
_RETRY_US: Final = 1_000_000
_WRITERS: Final[dict[int, Callable[..., bytes | str]]] = {
    pb.SYMBOL_FORMAT_UNSPECIFIED: render_png,
    pb.SYMBOL_FORMAT_PNG: render_png,
    pb.SYMBOL_FORMAT_SVG: render_svg,
    pb.SYMBOL_FORMAT_TERMINAL: render_terminal,
}

Context = grpc.aio.ServicerContext[Any, Any]
Answer = TypeVar("Answer")


class BarcodeServicer(rpc.BarcodeServiceServicer):
    """Barcodes over gRPC. Pictures are read in child processes under limits, and symbols drawn in threads of their own,
    so that other calls and payments beside them do not wait."""

    def __init__(self, directory: Directory = EMPTY, readers: Readers | None = None) -> None:
        self._directory = directory
        self._readers = readers or Readers()
        self._drawers = ThreadPoolExecutor(DRAWN_AT_ONCE_MAX, "symbols")
        self._drawing = 0

    def close(self) -> None:
        """Ends the child processes that read pictures."""
        self._readers.close()

    async def Decode(self, request: pb.DecodeRequest, context: Context) -> pb.DecodeResponse:  # noqa: N802 - gRPC's name
        """Says what a text is."""
        return pb.DecodeResponse(barcode=messages.barcode(decode(request.payload), self._directory))

    async def BatchDecode(  # noqa: N802 - gRPC's name
        self, request: pb.BatchDecodeRequest, context: Context
    ) -> pb.BatchDecodeResponse:
        """Says what up to 500 texts are."""
        if len(request.payloads) > PAYLOADS_MAX:
            await abort(context, HutongError(Reason.ERROR_REASON_BATCH_TOO_LARGE, max=str(PAYLOADS_MAX)))
        barcodes = [messages.barcode(decode(payload), self._directory) for payload in request.payloads]
        return pb.BatchDecodeResponse(barcodes=barcodes)

    async def Encode(self, request: pb.EncodeRequest, context: Context) -> pb.EncodeResponse:  # noqa: N802 - gRPC's name
        """Writes a merchant code."""
        code, scheme = messages.merchant_code(request)
        try:
            return pb.EncodeResponse(payload=build_merchant_code(code, scheme))
        except HutongError as error:
            await abort(context, error)

    async def Translate(  # noqa: N802 - gRPC's name
        self, request: pb.TranslateRequest, context: Context
    ) -> pb.TranslateResponse:
        """Says a merchant code in another encoding."""
        try:
            said = translate(request.payload, request.target or HUTONG, self._directory, request.account or None)
        except HutongError as error:
            await abort(context, error)
        return messages.translation(said, self._directory)

    async def Scan(self, request: pb.ScanRequest, context: Context) -> pb.ScanResponse:  # noqa: N802 - gRPC's name
        """Reads a picture."""
        try:
            reading = await self._readers.read(request.image, Effort.THOROUGH if request.thorough else Effort.LADDER)
        except HutongError as error:
            await abort(context, error)
        symbols = [messages.symbol(symbol, decode(symbol.text), self._directory) for symbol in reading.symbols]
        return pb.ScanResponse(symbols=symbols, incomplete=not reading.complete)

    async def Render(self, request: pb.RenderRequest, context: Context) -> pb.RenderResponse:  # noqa: N802 - gRPC's name
        """Draws a symbol."""
        writer = _WRITERS.get(request.format)
        try:
            if request.HasField("placard"):
                placard, form = messages.placard(request)
                drawn: bytes | str = await self._drawn(lambda: render_placard(placard, form))
            elif writer is None:
                raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="format")
            else:
                style = messages.style(request)
                drawn = await self._drawn(lambda: writer(request.text, request.symbology or QR, style))
        except HutongError as error:
            await abort(context, error)
        return pb.RenderResponse(symbol=drawn.encode("utf-8") if isinstance(drawn, str) else drawn)

    async def _drawn(self, work: Callable[[], Answer]) -> Answer:
        if self._drawing >= DRAWN_WAITING_MAX:
            raise HutongError(Reason.ERROR_REASON_OVERLOADED).after(_RETRY_US)
        self._drawing += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._drawers, work)
        finally:
            self._drawing -= 1
