"""Serves hutong.gateway.v1.SettlementService on grpc.aio. Reads the journal on threads of its own, so that payments do
not wait."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from gateway.clearing import messages
from gateway.clearing.callers import admit, check_operator, check_own
from gateway.clearing.closing import Put, close_window
from gateway.clearing.model import Position, Window
from gateway.clearing.reader import NUMBER_MAX, ClearingReader
from gateway.clearing.statements import Format, Statement, check, content
from gateway.directory import Directory
from gateway.engine.ports import JournalUnavailableError
from gateway.operators import Context, Operators
from hutong.gateway.v1 import settlement_pb2 as pb
from hutong.gateway.v1 import settlement_pb2_grpc as rpc
from hutong_contract.bounded import Bounded
from hutong_contract.errors import HutongError, Reason
from hutong_contract.limits import SETTLEMENT_PAGE_DEFAULT, SETTLEMENT_PAGE_MAX
from hutong_contract.paging import page_size
from hutong_contract.serving import abort

log = logging.getLogger(__name__)

THREADS: Final = 2
"""Reads at the same time; further ones wait."""
WAITING_MAX: Final = 64
"""Most calls that wait or run; further ones are refused."""
POSITIONS_KEPT_MAX: Final = 64
"""Windows whose positions are cached; they never change."""

Request = TypeVar("Request")
Response = TypeVar("Response")


def _unary(
    handler: Callable[[SettlementServicer, str, ClearingReader, Request], Response],
) -> Callable[[SettlementServicer, Request, Context], Awaitable[Response]]:
    """Admits the caller, runs a handler on a thread with a reader, and answers refusals with their details."""

    @functools.wraps(handler)
    async def call(self: SettlementServicer, request: Request, context: Context) -> Response:
        try:
            who = self.admit(request, context)
            with self.turn():
                return await self.on_thread(lambda: self.read(handler, who, request))
        except HutongError as refusal:
            error = refusal
        except JournalUnavailableError as unavailable:
            log.error("a settlement call could not read the journal", exc_info=unavailable)
            error = HutongError(Reason.ERROR_REASON_JOURNAL_UNAVAILABLE)
        return await abort(context, error)

    return call


class SettlementServicer(rpc.SettlementServiceServicer):
    """Closes windows through the engine, and reads them from the journal."""

    def __init__(
        self, directory: Directory, operators: Operators, open_reader: Callable[[], ClearingReader], put: Put
    ) -> None:
        self._directory = directory
        self._operators = operators
        self._open_reader = open_reader
        self._put = put
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="settlement")
        self._turns = threading.Semaphore(WAITING_MAX)
        self._positions: Bounded[int, list[Position]] = Bounded(POSITIONS_KEPT_MAX)

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(cancel_futures=True)

    def admit(self, request: Any, context: Context) -> str:
        """The participant that asks; empty for an operator. Raises HutongError."""
        return admit(request.caller, context, self._directory, self._operators)

    def turn(self) -> _Turn:
        """Takes a place among the running calls. Raises HutongError(OVERLOADED)."""
        return _Turn(self._turns)

    async def on_thread(self, work: Callable[[], Response]) -> Response:
        """Runs a function on a thread, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def read(
        self,
        handler: Callable[[SettlementServicer, str, ClearingReader, Request], Response],
        who: str,
        request: Request,
    ) -> Response:
        """Runs a handler with a reader of its own."""
        reader = self._open_reader()
        try:
            return handler(self, who, reader, request)
        finally:
            reader.close()

    def positions(self, reader: ClearingReader, window: Window) -> list[Position]:
        """A window's positions, from the cache if possible."""
        known = self._positions.get(window.number)
        if known is None:
            known = reader.positions(window)
            self._positions.put(window.number, known)
        return known

    @_unary
    def CloseWindow(  # noqa: N802 - gRPC's name
        self, who: str, reader: ClearingReader, request: pb.CloseWindowRequest
    ) -> pb.CloseWindowResponse:
        check_operator(who)
        return pb.CloseWindowResponse(window=messages.window(close_window(request.number, reader, self._put)))

    @_unary
    def GetWindow(  # noqa: N802 - gRPC's name
        self, who: str, reader: ClearingReader, request: pb.GetWindowRequest
    ) -> pb.GetWindowResponse:
        return pb.GetWindowResponse(window=messages.window(reader.window(request.number)))

    @_unary
    def ListWindows(  # noqa: N802 - gRPC's name
        self, who: str, reader: ClearingReader, request: pb.ListWindowsRequest
    ) -> pb.ListWindowsResponse:
        size = page_size(request.page_size, SETTLEMENT_PAGE_DEFAULT, SETTLEMENT_PAGE_MAX)
        found = reader.windows(messages.page_start(request.page_token, NUMBER_MAX), size + 1)
        more = len(found) > size
        return pb.ListWindowsResponse(
            windows=[messages.window(one) for one in found[:size]],
            next_page_token=str(found[size - 1].number) if more else "",
        )

    @_unary
    def ListPositions(  # noqa: N802 - gRPC's name
        self, who: str, reader: ClearingReader, request: pb.ListPositionsRequest
    ) -> pb.ListPositionsResponse:
        size = page_size(request.page_size, SETTLEMENT_PAGE_DEFAULT, SETTLEMENT_PAGE_MAX)
        start = messages.page_start(request.page_token, 0)
        every = self.positions(reader, reader.window(request.number))
        mine = [one for one in every if not who or one.participant == who]
        return pb.ListPositionsResponse(
            positions=[messages.position(one) for one in mine[start : start + size]],
            next_page_token=str(start + size) if start + size < len(mine) else "",
        )

    async def ReadStatement(  # noqa: N802 - gRPC's name
        self, request: pb.ReadStatementRequest, context: Context
    ) -> AsyncIterator[pb.ReadStatementResponse]:
        error: HutongError | None = None
        try:
            statement = self._statement(self.admit(request, context), request)
            with self.turn():
                pieces = _Pieces(self._pieces(statement, request.number))
                try:
                    while (piece := await self.on_thread(pieces.next)) is not None:
                        yield piece
                finally:
                    await self.on_thread(pieces.close)
        except HutongError as refusal:
            error = refusal
        except JournalUnavailableError as unavailable:
            log.error("a statement could not be read", exc_info=unavailable)
            error = HutongError(Reason.ERROR_REASON_JOURNAL_UNAVAILABLE)
        if error is not None:
            await abort(context, error)

    def _statement(self, who: str, request: pb.ReadStatementRequest) -> Statement:
        if not request.participant_id:
            raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field="participant_id")
        check_own(who, request.participant_id)
        if request.participant_id not in self._directory.participants:
            raise HutongError(Reason.ERROR_REASON_PARTICIPANT_UNKNOWN)
        try:
            shape = Format(int(request.format))
        except ValueError:
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="format", allowed="CSV or CAMT053") from None
        return check(Statement(request.participant_id, shape, request.currency))

    def _pieces(self, statement: Statement, number: int) -> Generator[pb.ReadStatementResponse, None, None]:
        """The pieces of a generator that runs on threads (_Pieces)."""
        reader = self._open_reader()
        try:
            window = reader.window(number)
            positions = self.positions(reader, window) if statement.format is Format.CAMT053 else []
            digest, size = hashlib.sha256(), 0
            for chunk in content(statement, window, positions, reader.settled(window)):
                digest.update(chunk)
                size += len(chunk)
                yield pb.ReadStatementResponse(content=chunk)
            yield pb.ReadStatementResponse(sha256=digest.digest(), size_bytes=size)
        finally:
            reader.close()


class _Pieces:
    """A generator that several threads run in turn. It may be closed while it still makes a piece for a caller that
    left."""

    def __init__(self, pieces: Generator[pb.ReadStatementResponse, None, None]) -> None:
        self._pieces = pieces
        self._lock = threading.Lock()

    def next(self) -> pb.ReadStatementResponse | None:
        """The next piece; None at the end."""
        with self._lock:
            return next(self._pieces, None)

    def close(self) -> None:
        """Ends it, and its connection."""
        with self._lock:
            self._pieces.close()


class _Turn:
    """One of WAITING_MAX places."""

    def __init__(self, turns: threading.Semaphore) -> None:
        self._turns = turns

    def __enter__(self) -> None:
        if not self._turns.acquire(blocking=False):
            raise HutongError(Reason.ERROR_REASON_OVERLOADED)

    def __exit__(self, *_: object) -> None:
        self._turns.release()
