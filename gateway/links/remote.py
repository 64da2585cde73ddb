"""The link to participants over gRPC: each opens one bidirectional stream; frames carry batches both ways.

`gateway.links.windows` decides what may be sent when. This module has the streams, and the lock between their thread
and the engine's.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import threading
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NoReturn

import grpc

from gateway.directory import Directory
from gateway.engine.inbox import Inbox
from gateway.engine.model import Answered, LegOut
from gateway.engine.ports import Link
from gateway.links.frames import answered, framed
from gateway.links.windows import WINDOW, Windows
from hutong.participant.v1 import participant_pb2 as pb
from hutong.participant.v1 import participant_pb2_grpc as rpc
from hutong_contract.errors import HutongError, Reason
from hutong_contract.limits import FRAME_ANSWERS_MAX, INSTALLATION_CHARACTERS_MAX
from hutong_contract.serving import abort, proves

log = logging.getLogger(__name__)

HELLO_S: Final = 10.0
EXPIRE_US: Final = 500_000
"""How often the engine's ticks look for expired places, in microseconds. Sending a leg looks too."""
ANSWERS_WAITING_MAX: Final = 100_000
"""Most answers that wait for the engine; beyond them streams are not read, so that participants have to wait."""
READ_AGAIN_S: Final = 0.01
UNASKED_PER_S: Final = 2_000
"""Rate at which unexpected answers are read, per second, after a burst of as many as a window has places. Each costs
the engine as much as an expected one."""
WRONG_S: Final = 1.0
"""Delay before a wrong secret is refused, in seconds."""
WRONG_MAX: Final = 1_000
"""Most refusals that are delayed at a time; beyond them they are sent at once."""
REPORT_S: Final = 10.0
"""How often the log reports attempts to connect that were refused, in seconds."""

Context = grpc.aio.ServicerContext[Any, Any]


class Pace:
    """A rate limit: so many per second, after an initial burst. Pure: the time is passed in."""

    def __init__(self, per_s: float, at_once: float) -> None:
        self._per_s = per_s
        self._at_once = at_once
        self._left = at_once
        self._at_s: float | None = None

    def take(self, count: int, now_s: float) -> float:
        """Counts some. Returns the seconds until the next may come."""
        if self._at_s is not None:
            self._left = min(self._at_once, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        self._left -= count
        return max(0.0, -self._left / self._per_s)


class Refused:
    """Reports attempts to connect as a participant that were refused: one entry of the log each REPORT_S."""

    def __init__(self) -> None:
        self._since: dict[str, int] = {}
        """Participant, of the directory's, to the refusals that were not reported yet."""
        self._next_s: dict[str, float] = {}

    def report(self, participant: str, why: str, context: Context) -> None:
        """Counts a refusal, and logs it if none was logged lately."""
        count = self._since[participant] = self._since.get(participant, 0) + 1
        now_s = time.monotonic()
        if now_s >= self._next_s.get(participant, 0.0):
            self._next_s[participant] = now_s + REPORT_S
            del self._since[participant]
            log.warning(
                "refused as participant %s: %s (%d times since it was last said), from %s",
                participant, why, count, context.peer(),
            )  # fmt: skip


class _Stream:
    """One participant's open stream. `wake` is called under the link's lock, from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, epoch: int) -> None:
        self.epoch = epoch
        self.woken = asyncio.Event()
        self.idle = False
        """Whether the writer waits for legs and was not woken yet."""
        self._loop = loop

    def wake(self) -> None:
        """Tells the writer that there is something to send, or that the stream must end."""
        if self.idle:
            self.idle = False
            try:
                self._loop.call_soon_threadsafe(self.woken.set)
            except RuntimeError:  # the loop has ended: what waits is never sent, and given up in its time
                log.debug("a stream outlived its loop")


class RemoteLink(rpc.ParticipantServiceServicer):
    """The link to participants that connect to this gateway, and the gRPC service that they connect to."""

    def __init__(self, directory: Directory, *, window: int = WINDOW) -> None:
        """`window`: legs that may be unanswered at one participant. Raises ValueError if it is too small."""
        self._directory = directory
        self._inbox: Inbox[Any] = Inbox()
        self._lock = threading.Lock()
        self._windows = Windows(window)
        self._streams: dict[str, _Stream] = {}
        """The current stream of each participant. Guarded by the lock, as `_windows` is."""
        self._closed = False
        self._next_expiry_us = 0
        self._refusing = 0
        """Delayed refusals of wrong secrets."""
        self._refused = Refused()

    def use(self, inbox: Inbox[Any]) -> None:
        """Sets the engine's inbox, which receives the answers. Called before any participant connects."""
        self._inbox = inbox

    # -- the engine's side -------------------------------------------------------------------------------

    def reachable(self, participant: str) -> bool:
        return participant in self._streams

    def unanswered(self, participant: str) -> int:
        """Places in use in a participant's window."""
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
        """Serves one participant until it leaves or another connection of the same installation takes over."""
        hello = await self._hello(request_iterator, context)
        participant = hello.participant_id
        stream = self._open(participant, hello.installation)
        if stream is None:
            self._refused.report(participant, "another installation", context)
            await abort(context, HutongError(Reason.ERROR_REASON_PARTICIPANT_CONNECTED))
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

    def _open(self, participant: str, installation: str) -> _Stream | None:
        """Makes this stream the current one; None if a stream of another installation is current."""
        with self._lock:
            epoch = self._windows.connect(participant, installation)
            if epoch is None:
                return None
            before = self._streams.get(participant)
            stream = _Stream(asyncio.get_running_loop(), epoch)
            self._streams[participant] = stream
            if before is not None:
                before.wake()
        return stream

    def _take(self, participant: str, stream: _Stream) -> list[LegOut] | None:
        """The legs to send now; None if the stream must end."""
        with self._lock:
            legs = None if self._closed else self._windows.take(participant, stream.epoch)
            if legs is not None and not legs:
                stream.woken.clear()
                stream.idle = True
        return legs

    def _ended(self, participant: str, stream: _Stream) -> None:
        """The participant left, or the stream broke: gives up what was not sent."""
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

    async def _hello(self, requests: AsyncIterator[pb.ConnectRequest], context: Context) -> pb.Hello:
        """Reads and authenticates the Hello. Ends the call if there is none, or if it is refused."""
        try:
            first = await asyncio.wait_for(anext(requests), HELLO_S)
        except (StopAsyncIteration, TimeoutError):
            first = pb.ConnectRequest()
        if first.WhichOneof("frame") != "hello":
            await abort(context, HutongError(Reason.ERROR_REASON_FRAME_INVALID, expected="hello"))
        if len(first.hello.installation) > INSTALLATION_CHARACTERS_MAX:
            most = str(INSTALLATION_CHARACTERS_MAX)
            await abort(context, HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="installation", most=most))
        participant = self._directory.participants.get(first.hello.participant_id)
        if participant is None:
            await abort(context, HutongError(Reason.ERROR_REASON_PARTICIPANT_UNKNOWN))
        knows = participant.secret and hmac.compare_digest(first.hello.secret.encode(), participant.secret.encode())
        if not knows and not proves(context, participant.id, self._directory.participants):
            await self._refuse(participant.id, context)
        return first.hello

    async def _refuse(self, participant: str, context: Context) -> NoReturn:
        """Refuses a wrong secret: logs it and delays the answer. The participant itself is not locked out by others'
        guesses; its right secret is accepted at once."""
        self._refused.report(participant, "wrong credentials", context)
        if self._refusing < WRONG_MAX:
            self._refusing += 1
            try:
                await asyncio.sleep(WRONG_S)
            finally:
                self._refusing -= 1
        await abort(context, HutongError(Reason.ERROR_REASON_PARTICIPANT_REFUSED))

    async def _read(self, participant: str, stream: _Stream, requests: AsyncIterator[pb.ConnectRequest]) -> None:
        unasked = Pace(UNASKED_PER_S, self._windows.window)
        async for request in requests:
            if request.WhichOneof("frame") != "answers":
                raise HutongError(Reason.ERROR_REASON_FRAME_INVALID, expected="answers")
            if len(request.answers.answers) > FRAME_ANSWERS_MAX:
                raise HutongError(Reason.ERROR_REASON_FRAME_INVALID, answers_max=str(FRAME_ANSWERS_MAX))
            events = answered(participant, request.answers)
            with self._lock:
                too_many = self._windows.answered(participant, stream.epoch, [event.leg_id for event in events])
            self._inbox.put(events)
            if too_many:
                await asyncio.sleep(unasked.take(too_many, time.monotonic()))
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
