"""FaceService over grpc.aio: blocking work in a bounded pool of threads, errors from the contract's table."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import grpc

from facepay.captures import Place
from facepay.decision import Decision, Outcome
from facepay.enrolment import How
from facepay.gallery.engine import BATCH_MAX
from facepay.model import Asked, Identified
from facepay.operators import Operators
from facepay.records import Consent
from facepay.service import FaceService
from hutong.facepay.v1 import face_pb2, face_pb2_grpc
from hutong_contract.errors import HutongError, Reason
from hutong_contract.names import FACE_OPERATOR_SECRET_METADATA
from hutong_contract.serving import abort, proven_identities

THREADS: Final = 32
"""Calls worked on at once; they mostly wait for a shared search, which serves up to 64 together."""
BATCHES_AT_ONCE: Final = 2
"""Batches at once: while one is searched, the captures of the next are opened."""
READY_WAIT_S: Final = 5.0
"""Longest wait of an enrolment for the search to be loaded, and never more than half of its deadline: then its caller
is told when to come back."""
IN_FLIGHT_MAX: Final = 256
"""Calls admitted; beyond it callers are refused at once and may try again."""

Answer = TypeVar("Answer")
Context = grpc.aio.ServicerContext[Any, Any]

_OUTCOMES: Final = {outcome: face_pb2.Outcome.Value("OUTCOME_" + outcome.name) for outcome in Outcome}


class FaceServicer(face_pb2_grpc.FaceServiceServicer):
    """Serves one FaceService; `close` ends its threads, not the service."""

    def __init__(
        self,
        service: FaceService,
        operators: Operators,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._service = service
        self._operators = operators
        self._now = clock_us
        self._pool = ThreadPoolExecutor(THREADS, "face-call")
        self._in_flight = 0
        self._waiting: deque[tuple[Asked, asyncio.Future[Identified]]] = deque()
        self._batches = 0

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown()

    async def _run(self, context: Context, work: Callable[[], Answer]) -> Answer:
        """Does blocking work on a thread and turns a HutongError into the call's status."""
        if self._in_flight >= IN_FLIGHT_MAX:
            await abort(context, HutongError(Reason.ERROR_REASON_OVERLOADED))
        self._in_flight += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except HutongError as error:
            await abort(context, error)
        finally:
            self._in_flight -= 1

    async def _operate(self, context: Context, work: Callable[[], Answer]) -> Answer:
        """As `_run`, for calls that only the operator may make."""
        secret = dict(context.invocation_metadata() or ()).get(FACE_OPERATOR_SECRET_METADATA, "")
        try:
            self._operators.check(proven_identities(context), str(secret))
        except HutongError as error:
            await abort(context, error)
        return await self._run(context, work)

    async def BeginCapture(  # noqa: N802 - named by the contract, as all below
        self, request: face_pb2.BeginCaptureRequest, context: Context
    ) -> face_pb2.BeginCaptureResponse:
        try:
            session = self._service.begin_capture(request.terminal_id, request.count or 1, self._now())
        except HutongError as error:
            await abort(context, error)
        return face_pb2.BeginCaptureResponse(
            nonces=session.nonces,
            expires_at_us=session.expires_at_us,
            key_id=session.service.key_id,
            public_key=session.service.public_key,
            challenge=session.challenge,
            dimension=session.dimension,
        )

    async def RegisterTerminal(  # noqa: N802
        self, request: face_pb2.RegisterTerminalRequest, context: Context
    ) -> face_pb2.RegisterTerminalResponse:
        def work() -> face_pb2.RegisterTerminalResponse:
            self._service.register_terminal(
                request.terminal_id, request.merchant_id, request.algorithm, request.public_key
            )
            return face_pb2.RegisterTerminalResponse()

        return await self._operate(context, work)

    async def Enroll(  # noqa: N802
        self, request: face_pb2.EnrollRequest, context: Context
    ) -> face_pb2.EnrollResponse:
        given = request.consent
        consent = Consent(given.purpose, given.text_version, given.given_at_us, given.expires_at_us)
        gone = threading.Event()
        left_s = context.time_remaining()
        ends = None if left_s is None else time.monotonic() + left_s

        def work() -> face_pb2.EnrollResponse:
            done = self._service.enroll_sealed(
                request.subject,
                request.sealed,
                consent,
                region=request.region,
                merchants=request.merchant_ids,
                how=How(
                    replace=request.replace,
                    keep_reference=request.keep_reference,
                    allow_lookalike=request.allow_lookalike,
                    ready_within_s=READY_WAIT_S if left_s is None else min(READY_WAIT_S, left_s / 2),
                    still_wanted=lambda: not gone.is_set() and (ends is None or time.monotonic() < ends),
                ),
                now_us=self._now(),
            )
            return face_pb2.EnrollResponse(
                reference=done.reference.reveal(), templates=done.templates, repeated=done.repeated
            )

        try:
            return await self._operate(context, work)
        finally:
            gone.set()

    async def Identify(  # noqa: N802
        self, request: face_pb2.IdentifyRequest, context: Context
    ) -> face_pb2.IdentifyResponse:
        """Identifies the payer of a capture. Calls that arrive together are searched as one batch."""
        if len(self._waiting) >= IN_FLIGHT_MAX:
            await abort(context, HutongError(Reason.ERROR_REASON_OVERLOADED))
        answer: asyncio.Future[Identified] = asyncio.get_running_loop().create_future()
        self._waiting.append((Asked(request.capture.sealed, Place(), request.region, request.merchant_id), answer))
        self._start_batch()
        try:
            found = await answer
        except HutongError as error:
            await abort(context, error)
        return _identified(found.decision, found.subject.reference.reveal() if found.subject else "")

    def _start_batch(self) -> None:
        """Hands the queued captures to a thread, unless BATCHES_AT_ONCE are being worked on."""
        if self._batches >= BATCHES_AT_ONCE or not self._waiting:
            return
        taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_MAX))]
        self._batches += 1
        loop = asyncio.get_running_loop()
        asked = [one for one, _ in taken]
        work = loop.run_in_executor(self._pool, self._service.identify_many, asked, self._now())
        work.add_done_callback(lambda done: self._end_batch(done, [answer for _, answer in taken]))

    def _end_batch(self, done: asyncio.Future[list[Identified]], answers: list[asyncio.Future[Identified]]) -> None:
        self._batches -= 1
        error = done.exception()
        for number, answer in enumerate(answers):
            if answer.done():  # The caller has gone.
                continue
            if error:
                answer.set_exception(error)
            else:
                answer.set_result(done.result()[number])
        self._start_batch()

    async def Verify(  # noqa: N802
        self, request: face_pb2.VerifyRequest, context: Context
    ) -> face_pb2.VerifyResponse:
        def work() -> face_pb2.VerifyResponse:
            decision = self._service.verify(request.subject, request.capture.sealed, self._now())
            return face_pb2.VerifyResponse(
                outcome=_OUTCOMES[decision.outcome], score=decision.score, threshold=decision.threshold
            )

        return await self._run(context, work)

    async def DeleteSubject(  # noqa: N802
        self, request: face_pb2.DeleteSubjectRequest, context: Context
    ) -> face_pb2.DeleteSubjectResponse:
        def work() -> face_pb2.DeleteSubjectResponse:
            templates, receipt = self._service.delete(request.subject, self._now())
            return face_pb2.DeleteSubjectResponse(templates=templates, receipt=receipt)

        return await self._operate(context, work)

    async def RenewGallery(  # noqa: N802
        self, _: face_pb2.RenewGalleryRequest, context: Context
    ) -> face_pb2.RenewGalleryResponse:
        return await self._operate(context, lambda: face_pb2.RenewGalleryResponse(epoch=self._service.renew()))

    async def GetStatus(  # noqa: N802
        self, request: face_pb2.GetStatusRequest, context: Context
    ) -> face_pb2.GetStatusResponse:
        def work() -> face_pb2.GetStatusResponse:
            status = self._service.status()
            return face_pb2.GetStatusResponse(
                persons=status.persons,
                templates=status.templates,
                dimension=status.dimension,
                segments=status.segments,
                tail_rows=status.tail_rows,
                quarantined=status.quarantined,
                epoch=status.epoch,
                threshold=status.thresholds.alone,
                threshold_last_four=status.thresholds.last_four,
                filing_threshold=status.filing_faces,
                filing_due=status.filing_due,
                outcomes=status.outcomes,
                ready_in_us=int(status.ready_in_s * 1e6),
            )

        return await self._run(context, work)


def _identified(decision: Decision, reference: str) -> face_pb2.IdentifyResponse:
    return face_pb2.IdentifyResponse(
        outcome=_OUTCOMES[decision.outcome],
        reference=reference,
        score=decision.score,
        second=decision.second,
        threshold=decision.threshold,
        enrolled=decision.enrolled,
        detail=decision.detail,
    )
