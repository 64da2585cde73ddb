"""The gateway's side of `ParticipantService`, for one participant: accepts its streams, sends legs, keeps answers."""

from __future__ import annotations

import hmac
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent import futures
from types import TracebackType
from typing import Any, Final

import grpc

from gateway.links.windows import WINDOW
from gateway.listen import Address, ListenError, Tls
from hutong.participant.v1 import participant_pb2 as pb
from hutong.participant.v1 import participant_pb2_grpc as rpc
from hutong_contract.errors import DETAILS_METADATA_KEY, HutongError, Reason
from hutong_contract.limits import MESSAGE_BYTES_MAX
from hutong_contract.secret import Secret

STREAMS_MAX: Final = 64
"""Streams at once; a participant has one, and for a moment two."""
ANSWERS_MAX: Final = 1_000_000
"""Answers that are kept; a run sends some thousand legs."""

_End = grpc.StatusCode | None


class Stream:
    """One stream of the participant. Used from any thread."""

    def __init__(self) -> None:
        self.out: queue.SimpleQueue[pb.ConnectResponse | None] = queue.SimpleQueue()
        self.end_status: _End = None
        self.gone = threading.Event()

    def send(self, legs: Sequence[pb.Leg]) -> None:
        """Sends one frame."""
        self.out.put(pb.ConnectResponse(legs=pb.LegFrame(legs=legs)))

    def end(self, status: _End = None) -> None:
        """Ends the stream: as a gateway that stops does, or with an error status."""
        self.end_status = status
        self.out.put(None)


class Peer(rpc.ParticipantServiceServicer):
    """A gateway that knows one participant. Use as a context manager."""

    def __init__(
        self,
        address: Address,
        participant_id: str,
        secret: Secret[str] | None,
        tls: Tls | None = None,
    ) -> None:
        """`secret`: what its Hello must have; None: any. Raises ListenError where the address cannot be used."""
        self._participant_id = participant_id
        self._secret = secret
        self._changed = threading.Condition()
        self._answers: defaultdict[bytes, list[pb.Answer]] = defaultdict(list)
        self._count = 0
        self._streams: list[Stream] = []
        self._stream: Stream | None = None
        self.breaches: list[str] = []
        """What it did against the rules of the stream itself: frames that must not come, wrong credentials."""
        self._server = grpc.server(
            futures.ThreadPoolExecutor(STREAMS_MAX, thread_name_prefix="stream"),
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)],
        )
        rpc.add_ParticipantServiceServicer_to_server(self, self._server)
        try:
            port = self._bind(address.target, tls)
        except (RuntimeError, OSError) as error:
            raise ListenError(f"{address.target} cannot be listened on: {error}") from None
        self.target = address.target if address.path else Address(address.host, port).target
        """Where the participant is to connect."""

    def _bind(self, target: str, tls: Tls | None) -> int:
        if tls is None:
            return self._server.add_insecure_port(target)
        authority = tls.client_authority.read_bytes() if tls.client_authority else None
        pair = [(tls.key.read_bytes(), tls.certificate.read_bytes())]
        credentials = grpc.ssl_server_credentials(pair, authority, require_client_auth=authority is not None)
        return self._server.add_secure_port(target, credentials)

    def __enter__(self) -> Peer:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            streams = list(self._streams)
        for stream in streams:
            stream.end()
        self._server.stop(1.0).wait()

    # -- for the checks --------------------------------------------------------------------------------------

    def stream(self, seconds: float, *, other_than: Stream | None = None) -> Stream | None:
        """The participant's stream, once it is there; None where it does not connect in time."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._stream is None or self._stream is other_than:
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(left)
            return self._stream

    def answers(self, leg_id: bytes) -> list[pb.Answer]:
        """All answers that came to a leg, in their order."""
        with self._changed:
            return list(self._answers[leg_id]) if leg_id in self._answers else []

    def every_answer(self) -> dict[bytes, list[pb.Answer]]:
        """Leg id to all of its answers, legs that were never sent included."""
        with self._changed:
            return {leg_id: list(found) for leg_id, found in self._answers.items()}

    def wait(self, counts: dict[bytes, int], seconds: float) -> bool:
        """Waits until each leg id has as many answers; whether that came about. Ends early where no stream is left."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while any(len(self._answers.get(leg_id, ())) < count for leg_id, count in counts.items()):
                left = deadline - time.monotonic()
                if left <= 0 or self._stream is None:
                    return False
                self._changed.wait(left)
            return True

    # -- for the participant ---------------------------------------------------------------------------------

    def Connect(  # noqa: N802 - the contract's name
        self, request_iterator: Iterator[pb.ConnectRequest], context: Any
    ) -> Iterator[pb.ConnectResponse]:
        """Serves one stream, as the gateway does."""
        self._hello(request_iterator, context)
        stream = Stream()
        context.add_callback(lambda: stream.out.put(None))
        with self._changed:
            self._streams.append(stream)
            before, self._stream = self._stream, stream
            self._changed.notify_all()
        if before is not None:
            before.end()
        threading.Thread(target=self._read, args=(stream, request_iterator), daemon=True).start()
        try:
            yield pb.ConnectResponse(welcome=pb.Welcome(window=WINDOW))
            while (response := stream.out.get()) is not None:
                yield response
        finally:
            self._gone(stream)
        if stream.end_status is not None:
            context.abort(stream.end_status, "the conformance suite ends this stream")

    def _hello(self, requests: Iterator[pb.ConnectRequest], context: Any) -> None:
        try:
            first = next(requests)
        except (StopIteration, grpc.RpcError):
            first = pb.ConnectRequest()
        if first.WhichOneof("frame") != "hello":
            self._breach("the first frame of a stream is not a Hello")
            _abort(context, HutongError(Reason.ERROR_REASON_FRAME_INVALID, expected="hello"))
        if first.hello.participant_id != self._participant_id:
            self._breach(f"a Hello names {first.hello.participant_id!r}, not {self._participant_id!r}")
            _abort(context, HutongError(Reason.ERROR_REASON_PARTICIPANT_UNKNOWN))
        expected = self._secret.reveal() if self._secret is not None else first.hello.secret
        if not hmac.compare_digest(first.hello.secret.encode(), expected.encode()):
            self._breach("the secret of a Hello is not the one of the directory")
            _abort(context, HutongError(Reason.ERROR_REASON_PARTICIPANT_REFUSED))

    def _read(self, stream: Stream, requests: Iterator[pb.ConnectRequest]) -> None:
        try:
            for request in requests:
                if request.WhichOneof("frame") != "answers":
                    self._breach("a frame after the Hello holds no answers")
                    stream.end(grpc.StatusCode.INVALID_ARGUMENT)
                    return
                with self._changed:
                    self._count += len(request.answers.answers)
                    if self._count > ANSWERS_MAX:
                        self.breaches.append(f"more than {ANSWERS_MAX:,} answers")
                        stream.end(grpc.StatusCode.RESOURCE_EXHAUSTED)
                        return
                    for answer in request.answers.answers:
                        self._answers[answer.leg_id].append(answer)
                    self._changed.notify_all()
        except (grpc.RpcError, ValueError):  # the stream broke; ValueError: it was over before it was read
            pass
        finally:
            stream.out.put(None)

    def _gone(self, stream: Stream) -> None:
        with self._changed:
            if stream in self._streams:
                self._streams.remove(stream)
            if self._stream is stream:
                self._stream = None
            stream.gone.set()
            self._changed.notify_all()

    def _breach(self, text: str) -> None:
        with self._changed:
            if text not in self.breaches:
                self.breaches.append(text)
            self._changed.notify_all()


def _abort(context: Any, error: HutongError) -> None:
    """Ends the call as a gateway does. Does not return."""
    _, text, details = error.packed()
    context.set_trailing_metadata(((DETAILS_METADATA_KEY, details),))
    context.abort(error.status_code, text)
