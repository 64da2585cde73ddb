"""Serves hutong.gateway.v1.RiskService on grpc.aio. Reads committed state on threads of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

import grpc

from contract.errors import HutongError, Reason
from contract.serving import abort
from gateway.engine.answer import set_time
from gateway.engine.clock import Clock
from gateway.engine.model import Capture, Payment
from gateway.journal.interface import JournalUnavailableError, Reader
from gateway.journal.refusals import DecisionRow
from gateway.requests import payment_id_bytes
from gateway.risk.book import RuleBook
from gateway.risk.explain import explain
from gateway.risk.records import decision_message
from gateway.risk.rule_file import RulesError
from hutong.gateway.v1 import risk_pb2 as pb
from hutong.gateway.v1 import risk_pb2_grpc as rpc

PAGE_DEFAULT: Final = 50
PAGE_MAX: Final = 500
RELEASE_US: Final = 20_000_000
"""How long a release is waited for; the payment is answered as it stands then."""
RELEASE_MARGIN_S: Final = 5.0
PROBLEMS_TOLD_MAX: Final = 5
"""Mistakes of a file that an error names; the status names all that were found."""

Context = grpc.aio.ServicerContext[Any, Any]


class RiskServicer(rpc.RiskServiceServicer):
    """Risk over gRPC, for the operator."""

    def __init__(
        self, book: RuleBook, open_reader: Callable[[], Reader], put: Callable[[Iterable[Capture]], None]
    ) -> None:
        """`put` gives the engine an event."""
        self._book = book
        self._open_reader = open_reader
        self._put = put
        self._reader: Reader | None = None
        self._lock = threading.Lock()

    async def GetRiskStatus(  # noqa: N802 - gRPC's name
        self, request: pb.GetRiskStatusRequest, context: Context
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

    async def ReloadRiskRules(  # noqa: N802 - gRPC's name
        self, request: pb.ReloadRiskRulesRequest, context: Context
    ) -> pb.ReloadRiskRulesResponse:
        """Reads the file again."""
        try:
            return pb.ReloadRiskRulesResponse(version=await asyncio.to_thread(self._book.reload))
        except RulesError as error:
            told = {str(number): text for number, text in enumerate(error.problems[:PROBLEMS_TOLD_MAX], 1)}
            await abort(context, HutongError(Reason.ERROR_REASON_RISK_RULES_INVALID, **told))

    async def ListRiskDecisions(  # noqa: N802 - gRPC's name
        self, request: pb.ListRiskDecisionsRequest, context: Context
    ) -> pb.ListRiskDecisionsResponse:
        """A page of decisions, newest first."""
        try:
            if not 0 <= request.page_size <= PAGE_MAX:
                raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="page_size", most=str(PAGE_MAX))
            size = request.page_size or PAGE_DEFAULT
            before = _token(request.page_token)
            rows: list[DecisionRow] = await asyncio.to_thread(self._read, lambda reader: reader.decisions(before, size))
        except HutongError as error:
            await abort(context, error)
        more = rows[-1].payment_id.hex() if len(rows) == size else ""
        return pb.ListRiskDecisionsResponse(decisions=map(decision_message, rows), next_page_token=more)

    async def ExplainRisk(  # noqa: N802 - gRPC's name
        self, request: pb.ExplainRiskRequest, context: Context
    ) -> pb.ExplainRiskResponse:
        """Which rules would fire."""
        try:
            payment: Payment | None = None
            if request.payment_id:
                key = payment_id_bytes(request.payment_id)
                payment = await asyncio.to_thread(self._read, lambda reader: reader.payment(key))
                if payment is None:
                    raise HutongError(Reason.ERROR_REASON_PAYMENT_NOT_FOUND, payment_id=request.payment_id)
            return explain(self._book.judge, request, payment, Clock().now_us())
        except HutongError as error:
            await abort(context, error)

    async def ReleaseHeldPayment(  # noqa: N802 - gRPC's name
        self, request: pb.ReleaseHeldPaymentRequest, context: Context
    ) -> pb.ReleaseHeldPaymentResponse:
        """Lets a held payment go on, and answers with its end."""
        waiter = _Waiter(asyncio.get_running_loop())
        try:
            key = payment_id_bytes(request.payment_id)
            self._put((Capture(key, 0, waiter, Clock().now_us() + RELEASE_US, operator=True),))
            payload = await asyncio.wait_for(waiter.told, RELEASE_US / 1e6 + RELEASE_MARGIN_S)
        except TimeoutError:
            await abort(context, HutongError(Reason.ERROR_REASON_JOURNAL_UNAVAILABLE))
        except HutongError as error:
            await abort(context, error)
        # The payment is field 1 of this answer as of every other.
        return pb.ReleaseHeldPaymentResponse.FromString(payload)

    def _read(self, ask: Callable[[Reader], Any]) -> Any:
        """Asks the one reader, on whatever thread; one question at a time."""
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
    """Hears of the release on the engine's thread and tells the caller's loop."""

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
