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

import click
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
    """Answers that wait for their delay, on the way to one stream."""

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
    """One participant behind several streams: one frame at a time, whichever gateway it came from."""

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
            log.error("%s: %s", self.id, error)  # not by click: where the disk is full, a log on it is too
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
    """Books have one keeper: two would not know of each other's balances. Ends with the process, however it ends."""
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


def _tls(authority: Path | None, certificate: Path | None, key: Path | None, name: str) -> TlsOptions | None:
    """Raises click.UsageError where options lack others."""
    if (certificate is None) is not (key is None) or (authority is None and (certificate or name)):
        raise click.UsageError("--tls-cert and --tls-key go together, and need --tls-ca.")
    if authority is None:
        return None
    own_key = key.read_bytes() if key else None
    chain = certificate.read_bytes() if certificate else None
    return TlsOptions(authority.read_bytes(), own_key, chain, name)


def _open(target: str, tls: TlsOptions | None) -> grpc.Channel:
    wait_ms = int(RECONNECT_MAX_S * 1_000)
    backoff = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", wait_ms))
    return open_channel(target, ClientOptions(channel_options=backoff, tls=tls))


_PEM: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option(
    "--target",
    "targets",
    multiple=True,
    required=True,
    help="A gateway's address, HOST:PORT or unix:/PATH; once for each gateway.",
)
@click.option("--id", "participant_id", required=True, help="The participant's id in the gateway's directory.")
@click.option("--role", type=click.Choice([role.name.lower() for role in Role]), required=True)
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where its books are.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of its latencies and faults.")
@click.option("--magic/--no-magic", default=True, show_default=True, help="Whether magic amounts are in effect.")
@click.option("--latency-ms", type=click.FloatRange(min=0), default=0.0, show_default=True, help="Median answer time.")
@click.option("--tls-ca", type=_PEM, help="Use TLS, and expect a certificate signed by this authority (PEM).")
@click.option("--tls-cert", type=_PEM, help="This participant's own certificate chain (PEM).")
@click.option("--tls-key", type=_PEM, help="Its private key (PEM).")
@click.option("--tls-name", default="", help="The name in the gateway's certificate, if it is not the target's.")
@click.option("--secret-first", is_flag=True, help="Its secret is the first line of standard input.")
@click.option("--until-eof", is_flag=True, help="Also stop when standard input ends: with whoever started it.")
def main(
    targets: tuple[str, ...],
    participant_id: str,
    role: str,
    folder: Path,
    seed: int,
    *,
    magic: bool,
    latency_ms: float,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_name: str,
    secret_first: bool,
    until_eof: bool,
) -> None:
    """Runs a simulated issuer or acquirer until stopped. Its secret comes from HUTONG_PARTICIPANT_SECRET."""
    confinement.keep_to_owner()
    confinement.without_dumps()
    log_to(sys.stderr, "%(asctime)s %(levelname)s %(message)s")
    if len(targets) > TARGETS_MAX:
        raise click.UsageError(f"at most {TARGETS_MAX} gateways")
    tls = _tls(tls_ca, tls_cert, tls_key, tls_name)
    secret = _secret(first=secret_first)
    try:
        lock = _lock(folder)
        installation = _installation(folder)
        books = Books(folder)
        participant = SimulatedParticipant(participant_id, Role[role.upper()], books, seed=seed, magic_amounts=magic)
    except BooksError as error:
        raise click.ClickException(str(error)) from None
    participant.script = Script(latency=Latency(int(latency_ms * 1_000), 0.4))
    desk = Desk(participant)
    channels = [_open(target, tls) for target in dict.fromkeys(targets)]
    runners = [Runner(desk, channel, secret, installation) for channel in channels]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop(runners))
    if until_eof:
        threading.Thread(target=_stop_at_eof, args=(runners,), daemon=True).start()
    try:
        serve(runners)
    except HutongError as error:
        raise click.ClickException(str(error)) from None
    finally:
        for channel in channels:
            channel.close()
        books.close()
        os.close(lock)


if __name__ == "__main__":
    main()
