"""A simulated participant as a process of its own: dials its gateways, and answers legs over their streams.

    HUTONG_PARTICIPANT_SECRET=... python -m sandbox.participants.process \\
        --target 127.0.0.1:50050 --target 127.0.0.1:50051 --id issuer-a --role issuer --folder data/issuer-a

With `--secret-first` the secret is the first line of standard input instead: whoever starts the process passes it on
without anybody's finding it in an environment. `--tls-ca` connects over TLS, `--tls-cert` and `--tls-key` prove by a
certificate who connects.

The accounts are those that its books know, and the books are one, whichever gateway asks: a leg that a second gateway
sends again is answered again and not done again. Runs until SIGTERM or SIGINT; connects again, with growing waits,
whenever a stream ends. Exits with 1 where a gateway refuses the credentials.
"""

from __future__ import annotations

import argparse
import fcntl
import heapq
import itertools
import logging
import os
import random
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import grpc

from hutong.participant.v1 import participant_pb2 as pb
from hutong.participant.v1 import participant_pb2_grpc as rpc
from hutong_client.errors import typed
from hutong_client.options import ClientOptions, TlsOptions
from hutong_client.wire import open_channel
from hutong_contract import confinement
from hutong_contract.cleaning import log_to
from hutong_contract.errors import HutongError, Reason
from hutong_contract.legs import Answer, Leg
from hutong_contract.limits import INSTALLATION_CHARACTERS_MAX
from hutong_contract.secret import Secret
from sandbox.participants.books import Books, BooksError
from sandbox.participants.ledger import Role
from sandbox.participants.script import Latency, Script
from sandbox.participants.simulated import Answers, SimulatedParticipant

log = logging.getLogger(__name__)

SECRET_VARIABLE: Final = "HUTONG_PARTICIPANT_SECRET"
WAITING_MAX: Final = 100_000
"""Answer frames that wait for their delay; beyond them answers are lost, and the gateway inquires."""
RECONNECT_S: Final = 0.1
RECONNECT_MAX_S: Final = 1.0
"""The longest wait between attempts: what a restarted gateway has to do without this participant."""
TARGETS_MAX: Final = 64
"""Gateways that one participant serves: a thread for each."""
LOCK_NAME: Final = "books.lock"
INSTALLATION_NAME: Final = "installation"
INSTALLATION_BYTES: Final = 16
SECRET_BYTES_MAX: Final = 4096
REFUSALS: Final = frozenset({Reason.ERROR_REASON_PARTICIPANT_REFUSED, Reason.ERROR_REASON_PARTICIPANT_UNKNOWN})


class Outbox:
    """Answers to one stream that wait for their delay."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, pb.ConnectRequest]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, request: pb.ConnectRequest, delay_us: int = 0) -> None:
        """Lets a request leave after `delay_us`; equal delays leave in the order in which they were put."""
        with self._changed:
            if len(self._heap) < WAITING_MAX:
                heapq.heappush(self._heap, (time.monotonic() + delay_us / 1e6, next(self._order), request))
                self._changed.notify()

    def close(self) -> None:
        """Ends the iteration; what waits is lost."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def __iter__(self) -> Iterator[pb.ConnectRequest]:
        while True:
            with self._changed:
                while not self._closed:
                    wait_s = self._heap[0][0] - time.monotonic() if self._heap else None
                    if wait_s is not None and wait_s <= 0:
                        break
                    self._changed.wait(wait_s)
                if self._closed:
                    return
                request = heapq.heappop(self._heap)[2]
            yield request


class Desk:
    """One participant with several streams. It handles one frame at a time, from any gateway."""

    def __init__(self, participant: SimulatedParticipant) -> None:
        self.id = participant.id
        self._participant = participant
        self._lock = threading.Lock()

    def work(self, legs: Sequence[Leg]) -> Answers:
        """The answers to these legs; none where the books cannot be written, so that the gateway inquires later."""
        try:
            with self._lock:
                return self._participant.handle(legs, time.time_ns() // 1_000)
        except BooksError as error:
            log.error("%s: %s", self.id, error)
            return []


class Runner:
    """Keeps one participant connected to one gateway."""

    def __init__(self, desk: Desk, channel: grpc.Channel, secret: Secret[str], installation: str = "") -> None:
        """`installation`: by which a new stream takes over from one whose line was cut."""
        self._installation = installation
        self._desk = desk
        self._connect = rpc.ParticipantServiceStub(channel).Connect
        self._secret = secret
        self._stopped = threading.Event()
        self._turned_away = False
        """Whether the log has said that this gateway does not welcome it; it tries again."""
        self._outbox = Outbox()
        self._stream: grpc.Call | None = None

    def stop(self) -> None:
        """Makes `run` return soon. May be called from any thread or a signal handler."""
        self._stopped.set()
        self._outbox.close()
        stream = self._stream
        if stream is not None:
            stream.cancel()  # type: ignore[no-untyped-call]

    def run(self) -> None:
        """Connects again and again until stopped. Raises HutongError where the gateway refuses the credentials."""
        wait_s = RECONNECT_S
        while not self._stopped.is_set():
            if self._serve_once():
                wait_s = RECONNECT_S
            if self._stopped.wait(random.uniform(wait_s / 2, wait_s)):
                return
            wait_s = min(2 * wait_s, RECONNECT_MAX_S)

    def _serve_once(self) -> bool:
        """Serves one stream to its end; whether the gateway welcomed it."""
        outbox = self._outbox = Outbox()
        hello = pb.Hello(participant_id=self._desk.id, secret=self._secret.reveal(), installation=self._installation)
        outbox.put(pb.ConnectRequest(hello=hello))
        stream = self._connect(iter(outbox))
        self._stream = stream
        if self._stopped.is_set():
            self.stop()
        welcomed = False
        try:
            for response in stream:
                welcomed, self._turned_away = True, False
                if response.HasField("legs"):
                    for delay_us, answers in self._desk.work(response.legs.legs):
                        outbox.put(pb.ConnectRequest(answers=_frame(answers)), delay_us)
        except grpc.RpcError as failure:
            error = typed(failure)
            if isinstance(error, HutongError) and error.reason in REFUSALS:
                raise error from None
            if isinstance(error, HutongError) and not self._turned_away:
                self._turned_away = True
                log.warning("%s: %s", self._desk.id, error)
        finally:
            outbox.close()
            stream.cancel()  # type: ignore[no-untyped-call]
        return welcomed


def _frame(answers: Sequence[Answer]) -> pb.AnswerFrame:
    frame = pb.AnswerFrame()
    for leg_id, result, code in answers:
        frame.answers.add(leg_id=leg_id, result=result, response_code=code)
    return frame


def serve(runners: Sequence[Runner]) -> None:
    """Runs all of them until they are stopped. Raises HutongError where a gateway refuses the credentials; then all
    have stopped."""

    def run(runner: Runner) -> None:
        try:
            runner.run()
        except HutongError:
            stop(runners)
            raise

    with ThreadPoolExecutor(len(runners), thread_name_prefix="gateway") as threads:
        for ended in [threads.submit(run, runner) for runner in runners]:
            ended.result()


def stop(runners: Sequence[Runner]) -> None:
    """Stops all of them."""
    for runner in runners:
        runner.stop()


def _stop_at_eof(runners: Sequence[Runner]) -> None:
    sys.stdin.read()
    stop(runners)


def _lock(folder: Path) -> int:
    """A lock, so that books have one keeper: two would not know each other's balances. It ends with the process,
    however that ends."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise BooksError(f"another process keeps the books in {folder}; give it all gateways, with --target") from None
    return file


def _installation(folder: Path) -> str:
    """What these books are known by at gateways: made once. Call with the lock held. Raises BooksError."""
    path = folder / INSTALLATION_NAME
    try:
        if not path.exists():
            new = path.with_suffix(".new")
            new.write_text(secrets.token_hex(INSTALLATION_BYTES), "ascii")
            new.replace(path)
        return path.read_text("ascii")[:INSTALLATION_CHARACTERS_MAX]
    except (OSError, UnicodeError) as error:
        raise BooksError(f"{path} cannot be used: {error}") from None


def _secret(*, first: bool) -> Secret[str]:
    """What proves who this is, where no certificate does: the first line of standard input, or what the environment
    has, from which it is removed."""
    if first:
        return Secret(sys.stdin.readline(SECRET_BYTES_MAX).rstrip("\n"))
    return Secret(os.environ.pop(SECRET_VARIABLE, ""))


def _tls(given: argparse.Namespace) -> TlsOptions | None:
    """Raises OSError where a file cannot be read."""
    if given.tls_ca is None:
        return None
    own_key = given.tls_key.read_bytes() if given.tls_key else None
    chain = given.tls_cert.read_bytes() if given.tls_cert else None
    return TlsOptions(given.tls_ca.read_bytes(), own_key, chain, given.tls_name)


def _open(target: str, tls: TlsOptions | None) -> grpc.Channel:
    wait_ms = int(RECONNECT_MAX_S * 1_000)
    backoff = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", wait_ms))
    return open_channel(target, ClientOptions(channel_options=backoff, tls=tls))


def _arguments() -> argparse.Namespace:
    """What the command line says. Ends the process, with status 2, where that cannot be done."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.participants.process",
        description="Runs a simulated issuer or acquirer until stopped. Its secret comes from "
        f"{SECRET_VARIABLE}, or with --secret-first from standard input.",
    )
    add = parser.add_argument
    add(
        "--target", dest="targets", action="append", required=True, metavar="HOST:PORT",
        help="A gateway's address, HOST:PORT or unix:/PATH; once for each gateway.",
    )  # fmt: skip
    add("--id", required=True, help="The participant's id in the gateway's directory.")
    add("--role", choices=[role.name.lower() for role in Role], required=True)
    add("--folder", type=Path, required=True, help="Where its books are; made where it is not there.")
    add("--seed", type=int, default=0, help="Seed of its latencies and faults. Default: 0.")
    add("--magic", action=argparse.BooleanOptionalAction, default=True, help="Whether magic amounts are in effect.")
    add("--latency-ms", type=float, default=0.0, help="Median answer time. Default: 0.")
    add("--tls-ca", type=Path, help="Use TLS, and expect a certificate signed by this authority (PEM).")
    add("--tls-cert", type=Path, help="This participant's own certificate chain (PEM).")
    add("--tls-key", type=Path, help="Its private key (PEM).")
    add("--tls-name", default="", help="The name in the gateway's certificate, if it is not the target's.")
    add("--secret-first", action="store_true", help="Its secret is the first line of standard input.")
    add("--until-eof", action="store_true", help="Also stop when standard input ends: with whoever started it.")
    given = parser.parse_args()
    if len(given.targets) > TARGETS_MAX:
        parser.error(f"at most {TARGETS_MAX} gateways")
    if given.latency_ms < 0:
        parser.error("--latency-ms is 0 or more")
    if (given.tls_cert is None) is not (given.tls_key is None) or (
        given.tls_ca is None and (given.tls_cert or given.tls_name)
    ):
        parser.error("--tls-cert and --tls-key go together, and need --tls-ca")
    return given


def main() -> None:
    """Runs a simulated issuer or acquirer until stopped; ends the process with status 1 and a sentence where it cannot
    run, or is refused."""
    given = _arguments()
    confinement.keep_to_owner()
    confinement.without_dumps()
    log_to(sys.stderr, "%(asctime)s %(levelname)s %(message)s")
    secret = _secret(first=given.secret_first)
    try:
        tls = _tls(given)
        lock = _lock(given.folder)
        installation = _installation(given.folder)
        books = Books(given.folder)
        participant = SimulatedParticipant(
            given.id, Role[given.role.upper()], books, seed=given.seed, magic_amounts=given.magic
        )
    except (BooksError, OSError) as error:
        sys.exit(f"Error: {error}")
    participant.script = Script(latency=Latency(int(given.latency_ms * 1_000), 0.4))
    desk = Desk(participant)
    channels = [_open(target, tls) for target in dict.fromkeys(given.targets)]
    runners = [Runner(desk, channel, secret, installation) for channel in channels]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop(runners))
    if given.until_eof:
        threading.Thread(target=_stop_at_eof, args=(runners,), daemon=True).start()
    try:
        serve(runners)
    except HutongError as error:
        sys.exit(f"Error: {error}")
    finally:
        for channel in channels:
            channel.close()
        books.close()
        os.close(lock)


if __name__ == "__main__":
    main()
