"""One gateway process: engine, front and services, from start to drain."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from facepay.interface import FaceResolver
from gateway.admission import Gate
from gateway.budgets import QueryBudgets, QueryLimits
from gateway.calls import LIST
from gateway.directory import Directory
from gateway.engine.clock import Clock
from gateway.engine.clock_watch import ClockWatch
from gateway.engine.core import Core
from gateway.engine.inbox import Inbox
from gateway.engine.loop import IN_FLIGHT_MAX, Engine
from gateway.engine.ports import Call, Journal, JournalUnavailableError, Link, Neighbours
from gateway.engine.transitions import Timing
from gateway.fronts.aio import AioFront
from gateway.fronts.connections import SWEEP_S
from gateway.fronts.limits import HANDSHAKE_MS, IDLE_MS, KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS, connections_within
from gateway.intake import PaymentIntake
from gateway.journal.interface import Reader
from gateway.links.remote import RemoteLink, SwitchLink
from gateway.links.windows import WINDOW
from gateway.listen import Address, Tls, check
from gateway.lists import Lists
from gateway.operators import Operators
from gateway.queries import Queries
from gateway.risk.book import POLL_S as RULES_POLL_S
from gateway.risk.book import RuleBook
from gateway.risk.server import RiskServicer
from gateway.routing import Router
from gateway.watch import WatchHub
from hutong.gateway.v1 import risk_pb2_grpc
from hutong.participant.v1 import participant_pb2_grpc
from hutong_contract.errors import HutongError, Reason
from hutong_contract.limits import MESSAGE_BYTES_MAX
from hutong_contract.serving import Guard
from tokenization.interface import TokenResolver

log = logging.getLogger(__name__)

FACE_WORKERS: Final = 4
START_S: Final = 30.0
STOP_S: Final = 5.0
GIVE_UP_S: Final = 3.0
"""After the drain: how long to wait for threads that use the journal, in seconds."""
HEALTH_S: Final = 0.25
"""How often the health service and the gate follow the journal's state, in seconds."""
LOOKS: Final = 2
"""Successive looks that must find the journal silent, because a busy machine may delay both threads."""
RETRY_US: Final = 1_000_000
"""Advised delay of a retry while the journal does not answer, in microseconds."""

Register = Callable[[grpc.aio.Server], Sequence[str]]
"""Adds a service to the server and returns its full names."""


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """Options of a gateway."""

    listen: Address
    front: str = "native"
    """`native` or `aio`."""
    tls: Tls | None = None
    plaintext_anywhere: bool = False
    timing: Timing = field(default_factory=Timing)
    in_flight_max: int = IN_FLIGHT_MAX
    participant_window: int = WINDOW
    """Legs that may be unanswered at one participant on a stream."""
    queries: QueryLimits = field(default_factory=QueryLimits)
    open_files: int = 65_536
    """Files that the process may have open: half of them may be connections."""
    drain_s: float = 10.0


class Gateway:
    """A gateway, made of the parts that its owner passes. Call `start`, then `stop`."""

    def __init__(
        self,
        options: GatewayOptions,
        directory: Directory,
        journal: Journal,
        open_reader: Callable[[], Reader],
        tokens: TokenResolver,
        fingerprint_key: bytes,
        *,
        operators: Operators,
        faces: FaceResolver | None = None,
        local: Link | None = None,
        local_ids: frozenset[str] = frozenset(),
        services: Sequence[Register] = (),
        neighbours: Callable[[Core, Inbox[Any]], Neighbours] | None = None,
        risk: RuleBook | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`operators`: authorises operators. `neighbours`: the other engines on the same journal. `risk`: the risk
        rules; without it the package's own. `clock`: one for the whole process, which steps everywhere at once;
        `neighbours` compare it with the journal's."""
        secured = options.tls is not None
        check(options.listen, secured=secured, plaintext_allowed=options.plaintext_anywhere)
        if secured and options.front == "native":
            raise ValueError("the native front has no TLS; use --front aio, or put a TLS proxy before a Unix socket")
        self.options = options
        self._services = services
        self._clock = clock or Clock()
        self._watch = ClockWatch(self._clock) if neighbours is None else None
        self._workers = ThreadPoolExecutor(FACE_WORKERS, thread_name_prefix="face")
        self.queries = Queries(open_reader, directory.merchants, busy=lambda: self.engine.in_flight > 0)
        self.lists = Lists(open_reader, busy=lambda: self.engine.in_flight > 0)
        self.watch = WatchHub(open_reader)
        self.router = Router(directory, lambda participant: self._link.reachable(participant))
        self.risk = risk or RuleBook()
        self._risk_servicer = RiskServicer(
            self.risk, operators, open_reader, lambda events: self.engine.inbox.put(events), self._clock
        )
        intake = PaymentIntake(
            self.router,
            tokens,
            journal,
            fingerprint_key,
            faces=faces,
            workers=self._workers,
            wake=lambda: self.engine.inbox.wake(),
            judge=self.risk.judge,
        )
        core = Core(options.timing)
        self.engine = Engine(
            core,
            journal,
            self._build_link(directory, local, local_ids),
            intake,
            in_flight_max=options.in_flight_max,
            on_commit=self.watch.notify,
            observe=self.router.observe,
            on_refusal=self.risk.judge.not_taken,
            on_step=self.router.shift,
            clock=self._clock,
        )
        if neighbours is not None:
            self.engine.join(neighbours(core, self.engine.inbox))
        self._remote.use(self.engine.inbox)
        self.gate = Gate(self.engine.inbox)
        self.budgets = QueryBudgets(options.queries, lambda: core.lingering)
        self._journal = journal
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="asyncio", daemon=True)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._front: Any = None
        self._server: grpc.aio.Server | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.port = 0
        self._connections_max = connections_within(options.open_files)

    def _build_link(self, directory: Directory, local: Link | None, local_ids: frozenset[str]) -> Link:
        self._remote = RemoteLink(directory, window=self.options.participant_window)
        self._link: Link = SwitchLink(local, local_ids, self._remote)
        return self._link

    # -- start -----------------------------------------------------------------------------------------

    def start(self) -> int:
        """Recovers payments in flight, opens the port, and returns how many payments were recovered."""
        recovered = self.engine.recover()
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(START_S)
        self.engine.start()
        asyncio.run_coroutine_threadsafe(self._follow_health(), self._loop)
        asyncio.run_coroutine_threadsafe(self._follow_rules(), self._loop)
        asyncio.run_coroutine_threadsafe(self._follow_connections(), self._loop)
        return recovered

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _serve(self) -> None:
        guard = Guard(MESSAGE_BYTES_MAX, _known)
        options = [
            ("grpc.so_reuseport", 0),
            *guard.options,
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
            ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
            ("grpc.max_connection_idle_ms", IDLE_MS),
            ("grpc.max_allowed_incoming_connections", self._connections_max),
        ]
        server = grpc.aio.server(interceptors=[guard], options=options)
        front = AioFront(self._loop, self.gate, self.budgets, self._ask, self.watch.subscribe)
        server.add_generic_rpc_handlers((front.handler(),))
        participant_pb2_grpc.add_ParticipantServiceServicer_to_server(self._remote, server)
        risk_pb2_grpc.add_RiskServiceServicer_to_server(self._risk_servicer, server)
        names = [
            "hutong.gateway.v1.PaymentService",
            "hutong.gateway.v1.RiskService",
            "hutong.participant.v1.ParticipantService",
        ]
        for register in self._services:
            names.extend(register(server))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        self._names = ["", *names]
        names += [health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, server)
        self._server = server
        if self.options.front == "aio":
            self.engine.add_source(self.gate)
            self.port = self._bind(server, self.options.listen)
            await server.start()
        else:
            await self._serve_native(server)

    async def _serve_native(self, server: grpc.aio.Server) -> None:
        from gateway.fronts.native import NativeFront  # not on every platform

        self._folder = tempfile.TemporaryDirectory(prefix="hutong-")
        fallback = str(Path(self._folder.name) / "fallback.sock")
        server.add_insecure_port(f"unix:{fallback}")
        await server.start()
        listen = self.options.listen
        native = NativeFront(
            listen.target, self.gate, self.budgets, self._ask, self.watch.subscribe, fallback, self._connections_max
        )
        native.start()
        self.port = native.port
        self._front = native
        self.engine.add_source(native)

    def _ask(self, call: Call) -> None:
        """Passes a query to the thread that answers its kind."""
        (self.lists if call.method == LIST else self.queries).submit(call)

    def _bind(self, server: grpc.aio.Server, listen: Address) -> int:
        tls = self.options.tls
        if tls is None:
            return server.add_insecure_port(listen.target)
        authority = tls.client_authority.read_bytes() if tls.client_authority else None
        credentials = grpc.ssl_server_credentials(
            [(tls.key.read_bytes(), tls.certificate.read_bytes())],
            root_certificates=authority,
            require_client_auth=authority is not None,
        )
        return server.add_secure_port(listen.target, credentials)

    @property
    def target(self) -> str:
        """The address that clients use."""
        listen = self.options.listen
        return listen.target if listen.path else Address(listen.host, self.port).target

    def reachable(self, participant: str) -> bool:
        """Whether legs can be sent to this participant now."""
        return self._link.reachable(participant)

    def unanswered(self, participant: str) -> int:
        """Places in use in the window of a participant that connected."""
        return self._remote.unanswered(participant)

    @property
    def serving(self) -> bool:
        """Whether payments can be accepted and acknowledged."""
        received = self._front is None or self._front.failure is None
        return received and self.engine.serving and not self.gate.is_shut

    async def _follow_health(self) -> None:
        """Keeps health SERVING while payments can be acknowledged. While the journal does not answer, the gate is
        shut."""
        serving: bool | None = None
        silent = 0
        while self._server is not None:
            silent = silent + 1 if self.engine.silent else 0
            self._follow_silence(silent >= LOOKS)
            try:
                if self._watch is not None:
                    self._watch.look()
                if self.serving is not serving:
                    serving = self.serving
                    await self._say(serving)
            except Exception as error:  # without this task health would stay as it is for ever
                log.error("health could not be said, it is tried again", exc_info=error)
                serving = None
            await asyncio.sleep(HEALTH_S)

    def _follow_silence(self, silent: bool) -> None:
        if silent and not self.gate.is_shut:
            log.error("the journal does not answer: calls are refused until it does")
            refusal = HutongError(Reason.ERROR_REASON_JOURNAL_UNAVAILABLE, cause="the journal does not answer")
            self.gate.shut(refusal.after(RETRY_US))
            if self._front is not None:
                self._front.relieve()
        elif not silent and self.gate.is_shut:
            log.warning("the journal answers again: calls are taken")
            self.gate.open()

    async def _follow_rules(self) -> None:
        """Reads the file of risk rules again when it changes. Parsing delays neither calls nor ticks."""
        while self._server is not None:
            await asyncio.sleep(RULES_POLL_S)
            try:
                if self.risk.stale:
                    await asyncio.to_thread(self.risk.poll)
            except Exception as error:  # the rules in force stay, and are looked at again
                log.error("the file of risk rules could not be looked at", exc_info=error)

    async def _follow_connections(self) -> None:
        """Ends what is silent at the native front, and what is too much."""
        while self._server is not None:
            await asyncio.sleep(SWEEP_S)
            if self._front is None or self.options.listen.path:
                return
            try:
                await asyncio.to_thread(self._front.connections.sweep, time.monotonic())
            except Exception as error:  # they are looked at again
                log.error("connections could not be looked at", exc_info=error)

    async def _say(self, serving: bool) -> None:
        state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in self._names:
            await self._health.set(name, state)

    # -- stop ------------------------------------------------------------------------------------------

    def stop(self) -> bool:
        """Drains the gateway: health becomes NOT_SERVING, new requests are refused, and payments in flight have
        `drain_s` to end. Returns whether all ended; the others are settled after the next start. Does not wait for a
        journal that does not answer."""
        given_up = threading.Timer(self.options.drain_s + GIVE_UP_S, self._journal.give_up)
        given_up.daemon = True
        given_up.start()
        try:
            return self._stop()
        finally:
            given_up.cancel()

    def _stop(self) -> bool:
        asyncio.run_coroutine_threadsafe(self._health.enter_graceful_shutdown(), self._loop).result(STOP_S)
        empty = self.engine.drain(self.options.drain_s)
        self.watch.close()
        self.queries.close()
        self.lists.close()
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._link.close()
        server, self._server = self._server, None
        if server is not None:
            asyncio.run_coroutine_threadsafe(server.stop(STOP_S / 2), self._loop).result(STOP_S * 2)
        if self._front is not None:
            self._front.close()
        if self._folder is not None:
            self._folder.cleanup()
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result(STOP_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_S)
        if not self._thread.is_alive():
            self._loop.close()
        self._risk_servicer.close()
        self._journal.close()
        return empty


def _known(error: Exception) -> HutongError | None:
    """Translates the failure of a journal that cannot be read, which is no defect."""
    if not isinstance(error, JournalUnavailableError):
        return None
    log.error("a call could not read the journal: %s", error)
    return HutongError(Reason.ERROR_REASON_JOURNAL_UNAVAILABLE)


async def _cancel_others() -> None:
    """Cancels the other tasks of this loop, so that it can be closed."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
