"""Serves hutong.gateway.v1.RiskService on grpc.aio, to operators only. Reads committed state on threads of its own."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeVar

from gateway.engine.answer import set_time
from gateway.engine.clock import Clock
from gateway.engine.model import RISK_HOLD, Cancel, Capture, Payment
from gateway.engine.ports import JournalUnavailableError
from gateway.journal.interface import Reader
from gateway.journal.refusals import DecisionRow
from gateway.operators import Context, Operators, admit_operator
from gateway.requests import payment_id_bytes
from gateway.risk.book import RuleBook
from gateway.risk.explain import explain
from gateway.risk.records import decision_message
from gateway.risk.rule_file import RulesError
from hutong.gateway.v1 import risk_pb2 as pb
from hutong.gateway.v1 import risk_pb2_grpc as rpc
from hutong_contract.errors import HutongError, Reason
from hutong_contract.limits import DECISIONS_PAGE_DEFAULT, DECISIONS_PAGE_MAX
from hutong_contract.serving import abort

RELEASE_US: Final = 20_000_000
"""How long to wait for the end of a released payment, in microseconds; after that it is returned as it is."""
END_S: Final = 25.0
"""How long to wait for any other answer of the engine, in seconds."""
PROBLEMS_TOLD_MAX: Final = 5
"""Most mistakes of a file that an error names; the status names all."""

Request = TypeVar("Request")
Response = TypeVar("Response")


def _for_operators(
    handler: Callable[[RiskServicer, Request], Awaitable[Response]],
) -> Callable[[RiskServicer, Request, Context], Awaitable[Response]]:
    """Admits the caller, and answers refusals with their details."""

    @functools.wraps(handler)
    async def call(self: RiskServicer, request: Request, context: Context) -> Response:
        try:
            self.admit(request, context)
            return await handler(self, request)
        except HutongError as refusal:
            error = refusal
        return await abort(context, error)

    return call


class RiskServicer(rpc.RiskServiceServicer):
    """Risk over gRPC, for operators alone."""

    def __init__(
        self,
        book: RuleBook,
        operators: Operators,
        open_reader: Callable[[], Reader],
        put: Callable[[Iterable[Capture | Cancel]], None],
        clock: Clock,
    ) -> None:
        """`put` passes an event to the engine."""
        self._book = book
        self._operators = operators
        self._open_reader = open_reader
        self._put = put
        self._clock = clock
        self._reader: Reader | None = None
        self._lock = threading.Lock()

    def admit(self, request: Any, context: Context) -> None:
        """Raises HutongError unless an operator asks."""
        admit_operator(request.requestor_id, context, self._operators)

    @_for_operators
    async def GetRiskStatus(  # noqa: N802 - gRPC's name
        self, request: pb.GetRiskStatusRequest
    ) -> pb.GetRiskStatusResponse:
        """Which rules are in force."""
        status, judge = self._book.status(), self._book.judge
        message = pb.GetRiskStatusResponse(
            path=status.path,
            version=status.version,
            rules=[rule.name for rule in judge.rules.rules],
            refused_files=status.refused_files,
            problems=status.problems,
            actions=dict(judge.actions),
            fired=dict(judge.fired),
            subjects=len(judge.windows),
            subjects_max=judge.windows.subjects_max,
        )
        set_time(message.load_time, status.loaded_us)
        return message

    @_for_operators
    async def ReloadRiskRules(  # noqa: N802 - gRPC's name
        self, request: pb.ReloadRiskRulesRequest
    ) -> pb.ReloadRiskRulesResponse:
        """Reads the file again."""
        try:
            return pb.ReloadRiskRulesResponse(version=await asyncio.to_thread(self._book.reload))
        except RulesError as error:
            told = {str(number): text for number, text in enumerate(error.problems[:PROBLEMS_TOLD_MAX], 1)}
            raise HutongError(Reason.ERROR_REASON_RISK_RULES_INVALID, **told) from error

    @_for_operators
    async def ListRiskDecisions(  # noqa: N802 - gRPC's name
        self, request: pb.ListRiskDecisionsRequest
    ) -> pb.ListRiskDecisionsResponse:
        """A page of decisions, newest first."""
        if not 0 <= request.page_size <= DECISIONS_PAGE_MAX:
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="page_size", most=str(DECISIONS_PAGE_MAX))
        size = request.page_size or DECISIONS_PAGE_DEFAULT
        before = _token(request.page_token)
        rows: list[DecisionRow] = await asyncio.to_thread(self._read, lambda reader: reader.decisions(before, size))
        more = rows[-1].payment_id.hex() if len(rows) == size else ""
        return pb.ListRiskDecisionsResponse(decisions=map(decision_message, rows), next_page_token=more)

    @_for_operators
    async def ExplainRisk(  # noqa: N802 - gRPC's name
        self, request: pb.ExplainRiskRequest
    ) -> pb.ExplainRiskResponse:
        """Which rules would fire."""
        payment = await self._payment(request.payment_id) if request.payment_id else None
        return explain(self._book.judge, request, payment, self._clock.now_us())

    @_for_operators
    async def ReleaseHeldPayment(  # noqa: N802 - gRPC's name
        self, request: pb.ReleaseHeldPaymentRequest
    ) -> pb.ReleaseHeldPaymentResponse:
        """Releases a held payment, and answers when it has ended."""
        key = payment_id_bytes(request.payment_id)
        reply_by_us = self._clock.now_us() + RELEASE_US
        ended = await self._ended(lambda waiter: Capture(key, 0, waiter, reply_by_us, operator=True))
        # The payment is field 1 of this answer as of every other.
        return pb.ReleaseHeldPaymentResponse.FromString(ended)

    @_for_operators
    async def RejectHeldPayment(  # noqa: N802 - gRPC's name
        self, request: pb.RejectHeldPaymentRequest
    ) -> pb.RejectHeldPaymentResponse:
        """Cancels a payment that rules hold, or that was held until it was cancelled, and answers when it has ended."""
        payment = await self._payment(request.payment_id)
        if payment.reason != RISK_HOLD:
            named = {"payment_id": request.payment_id, "state": payment.state.name}
            raise HutongError(Reason.ERROR_REASON_PAYMENT_NOT_HELD, **named)
        ended = await self._ended(lambda waiter: Cancel(payment.payment_id, waiter))
        return pb.RejectHeldPaymentResponse.FromString(ended)

    async def _payment(self, payment_id: str) -> Payment:
        key = payment_id_bytes(payment_id)
        payment: Payment | None = await asyncio.to_thread(self._read, lambda reader: reader.payment(key))
        if payment is None:
            raise HutongError(Reason.ERROR_REASON_PAYMENT_NOT_FOUND, payment_id=payment_id)
        return payment

    async def _ended(self, event: Callable[[_Waiter], Capture | Cancel]) -> bytes:
        """Passes an event to the engine, and waits for its answer."""
        waiter = _Waiter(asyncio.get_running_loop())
        self._put((event(waiter),))
        try:
            return await asyncio.wait_for(waiter.told, END_S)
        except TimeoutError:
            raise HutongError(Reason.ERROR_REASON_JOURNAL_UNAVAILABLE) from None

    def _read(self, ask: Callable[[Reader], Any]) -> Any:
        """Queries the one reader, on some thread, one query at a time."""
        with self._lock:
            try:
                if self._reader is None:
                    self._reader = self._open_reader()
                return ask(self._reader)
            except JournalUnavailableError as error:
                raise HutongError(Reason.ERROR_REASON_JOURNAL_UNAVAILABLE) from error

    def close(self) -> None:
        """Ends the connection to the journal."""
        with self._lock:
            if self._reader is not None:
                self._reader.close()
                self._reader = None


class _Waiter:
    """Receives the end of a payment on the engine's thread and passes it to the caller's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.told: asyncio.Future[bytes] = loop.create_future()

    def answer(self, payload: bytes) -> None:
        self._loop.call_soon_threadsafe(self._tell, payload, None)

    def fail(self, error: HutongError) -> None:
        self._loop.call_soon_threadsafe(self._tell, b"", error)

    def _tell(self, payload: bytes, error: HutongError | None) -> None:
        if self.told.done():
            return  # its caller waited no longer
        if error is None:
            self.told.set_result(payload)
        else:
            self.told.set_exception(error)


def _token(text: str) -> bytes | None:
    if not text:
        return None
    try:
        value = bytes.fromhex(text)
        if len(value) != 16:
            raise ValueError(text)
    except ValueError:
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="page_token", allowed="as it was given") from None
    return value
