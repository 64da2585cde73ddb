"""Participants over gRPC: each opens one bidirectional stream and keeps it; frames carry batches both ways."""

from __future__ import annotations

import asyncio
import hmac
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import grpc

from contract.errors import HutongError, Reason
from contract.serving import abort, proven_identities
from gateway.directory import Directory
from gateway.engine.inbox import Inbox
from gateway.engine.model import Answered, LegOut
from gateway.links.interface import Link, answered, by_participant, framed, not_sent
from hutong.participant.v1 import participant_pb2 as pb
from hutong.participant.v1 import participant_pb2_grpc as rpc

log = logging.getLogger(__name__)

WINDOW: Final = 8192
"""Legs that may be unanswered at one participant; beyond it new legs are not sent."""
FRAME_LEGS_MAX: Final = 1000
FRAMES_WAITING_MAX: Final = 256
"""Frames that wait for a slow connection; beyond it new legs are not sent."""
HELLO_S: Final = 10.0

Context = grpc.aio.ServicerContext[Any, Any]


class _Session:
    """One connected participant. `waiting` is filled from the engine's thread, under the link's lock."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.queue: asyncio.Queue[pb.LegFrame | None] = asyncio.Queue()
        self.frames_waiting = 0
        self.unanswered = 0

    def put(self, frame: pb.LegFrame | None) -> None:
        self.loop.call_soon_threadsafe(self.queue.put_nowait, frame)


class RemoteLink(rpc.ParticipantServiceServicer):
    """See gateway.links.interface.Link; also the service that participants connect to."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._inbox: Inbox[Any] = Inbox()
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.Lock()

    def use(self, inbox: Inbox[Any]) -> None:
        """Where answers go: the engine's inbox. Before anybody connects."""
        self._inbox = inbox

    # -- the engine's side -------------------------------------------------------------------------------

    def reachable(self, participant: str) -> bool:
        """See the interface."""
        return participant in self._sessions

    def send(self, legs: Sequence[LegOut], now_us: int) -> list[Answered]:
        """See the interface."""
        lost: list[Answered] = []
        for participant, some in by_participant(legs).items():
            for start in range(0, len(some), FRAME_LEGS_MAX):
                part = some[start : start + FRAME_LEGS_MAX]
                if not self._send(participant, part):
                    lost.extend(not_sent(leg) for leg in part)
        return lost

    def _send(self, participant: str, legs: Sequence[LegOut]) -> bool:
        frame = framed(legs)
        with self._lock:
            session = self._sessions.get(participant)
            if (
                session is None
                or session.unanswered + len(legs) > WINDOW
                or session.frames_waiting >= FRAMES_WAITING_MAX
            ):
                return False
            session.unanswered += len(legs)
            session.frames_waiting += 1
            try:
                session.put(frame)
            except RuntimeError:  # the loop has ended
                return False
        return True

    def poll(self, now_us: int) -> list[Answered]:
        """See the interface: answers arrive through the engine's inbox."""
        return []

    def next_due_us(self) -> int | None:
        """See the interface."""
        return None

    def close(self) -> None:
        """See the interface."""
        with self._lock:
            for session in self._sessions.values():
                try:
                    session.put(None)
                except RuntimeError:
                    continue

    # -- the participant's side ----------------------------------------------------------------------------

    async def Connect(  # noqa: N802 - the contract's name
        self, request_iterator: AsyncIterator[pb.ConnectRequest], context: Context
    ) -> AsyncIterator[pb.ConnectResponse]:
        """Serves one participant until it leaves or another connection of the same participant takes over."""
        participant = await self._hello(request_iterator, context)
        session = _Session(asyncio.get_running_loop())
        with self._lock:
            before = self._sessions.get(participant)
            self._sessions[participant] = session
        if before is not None:
            before.put(None)
        log.info("participant %s connected", participant)
        reading = asyncio.ensure_future(self._read(participant, session, request_iterator))
        try:
            yield pb.ConnectResponse(welcome=pb.Welcome(window=WINDOW))
            while (frame := await session.queue.get()) is not None:
                session.frames_waiting -= 1
                yield pb.ConnectResponse(legs=frame)
        finally:
            with self._lock:
                if self._sessions.get(participant) is session:
                    del self._sessions[participant]
            reading.cancel()
            log.info("participant %s disconnected", participant)
        if reading.done() and not reading.cancelled() and isinstance(reading.exception(), HutongError):
            error = reading.exception()
            assert isinstance(error, HutongError), "checked above"
            await abort(context, error)

    async def _hello(self, requests: AsyncIterator[pb.ConnectRequest], context: Context) -> str:
        try:
            first = await asyncio.wait_for(anext(requests), HELLO_S)
        except (StopAsyncIteration, TimeoutError):
            first = pb.ConnectRequest()
        if first.WhichOneof("frame") != "hello":
            await abort(context, HutongError(Reason.ERROR_REASON_FRAME_INVALID, expected="hello"))
        participant = self._directory.participants.get(first.hello.participant_id)
        if participant is None:
            await abort(context, HutongError(Reason.ERROR_REASON_PARTICIPANT_UNKNOWN))
        knows = participant.secret and hmac.compare_digest(first.hello.secret.encode(), participant.secret.encode())
        if not knows and participant.id not in proven_identities(context):
            await abort(context, HutongError(Reason.ERROR_REASON_PARTICIPANT_REFUSED))
        return participant.id

    async def _read(self, participant: str, session: _Session, requests: AsyncIterator[pb.ConnectRequest]) -> None:
        try:
            async for request in requests:
                if request.WhichOneof("frame") != "answers":
                    raise HutongError(Reason.ERROR_REASON_FRAME_INVALID, expected="answers")
                with self._lock:
                    session.unanswered = max(0, session.unanswered - len(request.answers.answers))
                self._inbox.put(answered(participant, request.answers))
        finally:
            session.queue.put_nowait(None)


class SwitchLink:
    """Participants in this process by loopback, all others by their streams."""

    def __init__(self, local: Link | None, local_ids: frozenset[str], remote: RemoteLink) -> None:
        self._local = local
        self._local_ids = local_ids if local is not None else frozenset()
        self._remote = remote

    def _link_of(self, participant: str) -> Link:
        return self._local if self._local is not None and participant in self._local_ids else self._remote

    def reachable(self, participant: str) -> bool:
        """See the interface."""
        return self._link_of(participant).reachable(participant)

    def send(self, legs: Sequence[LegOut], now_us: int) -> list[Answered]:
        """See the interface."""
        here = [leg for leg in legs if leg.participant in self._local_ids]
        lost = self._local.send(here, now_us) if self._local is not None and here else []
        if len(here) < len(legs):
            lost = lost + self._remote.send([leg for leg in legs if leg.participant not in self._local_ids], now_us)
        return lost

    def poll(self, now_us: int) -> list[Answered]:
        """See the interface."""
        return self._local.poll(now_us) if self._local is not None else []

    def next_due_us(self) -> int | None:
        """See the interface."""
        return self._local.next_due_us() if self._local is not None else None

    def close(self) -> None:
        """See the interface."""
        self._remote.close()
        if self._local is not None:
            self._local.close()
