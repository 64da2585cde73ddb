"""Participants over gRPC: each opens one bidirectional stream and keeps it; frames carry batches both ways.

What may be sent when is decided in `gateway.links.windows`; here are the streams, and the lock between their thread and
the engine's.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import grpc

from gateway.directory import Directory
from gateway.engine.inbox import Inbox
from gateway.engine.model import Answered, LegOut
from gateway.links.interface import Link, answered, framed
from gateway.links.windows import WINDOW, Windows
from hutong.participant.v1 import participant_pb2 as pb
from hutong.participant.v1 import participant_pb2_grpc as rpc
from hutong_contract.errors import HutongError, Reason
from hutong_contract.serving import abort, proves

log = logging.getLogger(__name__)

HELLO_S: Final = 10.0
EXPIRE_US: Final = 500_000
"""How often the engine's ticks look for places that were given up; each leg that is sent looks too."""
ANSWERS_WAITING_MAX: Final = 100_000
"""Answers that may wait for the engine; beyond them streams are not read, so that participants have to wait."""
READ_AGAIN_S: Final = 0.01

Context = grpc.aio.ServicerContext[Any, Any]


class _Stream:
    """One participant's open stream. `wake` is called under the link's lock, from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, epoch: int) -> None:
        self.epoch = epoch
        self.woken = asyncio.Event()
        self.idle = False
        """Whether the writer waits for legs, and nobody has called it yet."""
        self._loop = loop

    def wake(self) -> None:
        """There is something to send, or the stream is to end."""
        if self.idle:
            self.idle = False
            try:
                self._loop.call_soon_threadsafe(self.woken.set)
            except RuntimeError:  # the loop has ended: what waits is never sent, and given up in its time
                log.debug("a stream outlived its loop")


class RemoteLink(rpc.ParticipantServiceServicer):
    """The link to participants that connect to this gateway, and the gRPC service that they connect to."""

    def __init__(self, directory: Directory, *, window: int = WINDOW) -> None:
        """`window`: legs that may be unanswered at one participant. Raises ValueError where that is too few."""
        self._directory = directory
        self._inbox: Inbox[Any] = Inbox()
        self._lock = threading.Lock()
        self._windows = Windows(window)
        self._streams: dict[str, _Stream] = {}
        """The stream that counts, of each participant. Both under the lock."""
        self._closed = False
        self._next_expiry_us = 0

    def use(self, inbox: Inbox[Any]) -> None:
        """Where answers go: the engine's inbox. Before anybody connects."""
        self._inbox = inbox

    # -- the engine's side -------------------------------------------------------------------------------

    def reachable(self, participant: str) -> bool:
        return participant in self._streams

    def unanswered(self, participant: str) -> int:
        """Places that are taken in a participant's window."""
        with self._lock:
            return self._windows.taken(participant)

    def send(self, legs: Sequence[LegOut], now_us: int) -> list[Answered]:
        with self._lock:
            lost, woken = self._windows.offer(legs, now_us)
            for participant in woken:
                self._streams[participant].wake()
        return lost

    def poll(self, now_us: int) -> list[Answered]:
        """Legs that were given up because they could not be sent. Answers do not come this way: they arrive in the
        engine's inbox."""
        if 0 <= self._next_expiry_us - now_us <= EXPIRE_US:
            return []
        self._next_expiry_us = now_us + EXPIRE_US
        with self._lock:
            return self._windows.expire(now_us)

    def next_due_us(self) -> int | None:
        return None

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for stream in self._streams.values():
                stream.wake()

    # -- the participant's side ----------------------------------------------------------------------------

    async def Connect(  # noqa: N802 - the contract's name
        self, request_iterator: AsyncIterator[pb.ConnectRequest], context: Context
    ) -> AsyncIterator[pb.ConnectResponse]:
        """Serves one participant until it leaves or another connection of the same participant takes over."""
        participant = await self._hello(request_iterator, context)
        stream = self._open(participant)
        log.info("participant %s connected", participant)
        reading = asyncio.ensure_future(self._read(participant, stream, request_iterator))
        reading.add_done_callback(lambda ended: self._read_ended(participant, stream, ended))
        try:
            yield pb.ConnectResponse(welcome=pb.Welcome(window=self._windows.window))
            while (legs := self._take(participant, stream)) is not None:
                if legs:
                    yield pb.ConnectResponse(legs=framed(legs))
                else:
                    await stream.woken.wait()
        finally:
            self._ended(participant, stream)
            reading.cancel()
            log.info("participant %s disconnected", participant)
        error = reading.exception() if reading.done() and not reading.cancelled() else None
        if error is not None and not isinstance(error, grpc.aio.BaseError):
            raise error  # a frame that is none, or a defect: the server's guard says it to the participant

    def _open(self, participant: str) -> _Stream:
        """This stream counts from now on."""
        with self._lock:
            before = self._streams.get(participant)
            stream = _Stream(asyncio.get_running_loop(), self._windows.connect(participant))
            self._streams[participant] = stream
            if before is not None:
                before.wake()
        return stream

    def _take(self, participant: str, stream: _Stream) -> list[LegOut] | None:
        """What to send now; None where the stream is to end."""
        with self._lock:
            legs = None if self._closed else self._windows.take(participant, stream.epoch)
            if legs is not None and not legs:
                stream.woken.clear()
                stream.idle = True
        return legs

    def _ended(self, participant: str, stream: _Stream) -> None:
        """The participant left, or the stream broke: what was not given to it will not be."""
        with self._lock:
            lost = self._windows.disconnect(participant, stream.epoch)
            if self._streams.get(participant) is stream:
                del self._streams[participant]
            stream.wake()
        if lost:
            self._inbox.put(lost)

    def _read_ended(self, participant: str, stream: _Stream, ended: asyncio.Task[None]) -> None:
        if not ended.cancelled() and (error := ended.exception()) is not None:
            log.info(
                "participant %s: %s", participant, error if isinstance(error, HutongError) else type(error).__name__
            )
        self._ended(participant, stream)

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
        if not knows and not proves(context, participant.id, self._directory.participants):
            await abort(context, HutongError(Reason.ERROR_REASON_PARTICIPANT_REFUSED))
        return participant.id

    async def _read(self, participant: str, stream: _Stream, requests: AsyncIterator[pb.ConnectRequest]) -> None:
        async for request in requests:
            if request.WhichOneof("frame") != "answers":
                raise HutongError(Reason.ERROR_REASON_FRAME_INVALID, expected="answers")
            events = answered(participant, request.answers)
            with self._lock:
                self._windows.answered(participant, stream.epoch, [event.leg_id for event in events])
            self._inbox.put(events)
            while len(self._inbox) > ANSWERS_WAITING_MAX and not self._closed:
                await asyncio.sleep(READ_AGAIN_S)


class SwitchLink:
    """Participants in this process by loopback, all others by their streams."""

    def __init__(self, local: Link | None, local_ids: frozenset[str], remote: RemoteLink) -> None:
        self._local = local
        self._local_ids = local_ids if local is not None else frozenset()
        self._remote = remote

    def _link_of(self, participant: str) -> Link:
        return self._local if self._local is not None and participant in self._local_ids else self._remote

    def reachable(self, participant: str) -> bool:
        return self._link_of(participant).reachable(participant)

    def send(self, legs: Sequence[LegOut], now_us: int) -> list[Answered]:
        here = [leg for leg in legs if leg.participant in self._local_ids]
        lost = self._local.send(here, now_us) if self._local is not None and here else []
        if len(here) < len(legs):
            lost = lost + self._remote.send([leg for leg in legs if leg.participant not in self._local_ids], now_us)
        return lost

    def poll(self, now_us: int) -> list[Answered]:
        return self._local.poll(now_us) if self._local is not None else []

    def next_due_us(self) -> int | None:
        return self._local.next_due_us() if self._local is not None else None

    def close(self) -> None:
        self._remote.close()
        if self._local is not None:
            self._local.close()
