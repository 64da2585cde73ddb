"""The journal's database server: a real PostgreSQL, with faults at the connections to it.

Statements go to the server. Where one is to fail, the server is made to raise that error in its place, so that the
transaction is aborted there as well, and pipelines behave as they do; where a connection is to end, the server ends it.
A COMMIT whose answer is lost was carried out, or was not, and the journal has to find out which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus

from gateway.engine.clock import PaymentIds
from gateway.engine.core import Core
from gateway.engine.loop import Engine
from gateway.journal import postgres_clock
from gateway.journal.interface import Reader
from gateway.journal.memory import Memory
from gateway.journal.postgres import PostgresJournal
from gateway.journal.postgres_check import examine_postgresql
from gateway.journal.postgres_connection import Connection
from gateway.journal.postgres_neighbours import BEAT_S, LOOK_S, PostgresNeighbours
from gateway.journal.postgres_reader import PostgresReader
from gateway.journal.postgres_waiting import SILENT_S, SilentServerError
from gateway.journal.report import Report
from verification.simulation.database import CommittedRows, Database
from verification.simulation.lines import LOCK_WAIT_US, LOOK_US, Lines
from verification.simulation.plan import LINE_MODES, DiskFault
from verification.simulation.storage import CrashError, Life, LostError, Neighbour, Rows, TornError

_CONTROL: Final = ("BEGIN", "COMMIT", "ROLLBACK", "SET ", "SHOW ")
_READS: Final = (*_CONTROL, "SELECT")
_REFUSALS: Final = {"full": "53100", "eio": "58030", "conflict": "40001"}
"""Fault -> the SQLSTATE of the server's answer: disk_full, io_error, serialization_failure."""
_TORN_TAKEN: Final = 0.5
"""If at least this share of a torn commit was written, it is in the server's log."""


class Server:
    """The PostgreSQL server of a simulated world, with the faults that its plan asks for."""

    def __init__(self, database: Database, now_us: Callable[[], int]) -> None:
        """`now_us`: true time, microseconds since the Unix epoch."""
        self.has_clock = True
        self.failed = 0
        self.mode = ""
        """The fault at work, of verification.simulation.plan.SERVER_MODES and LINE_MODES."""
        self.unsynced = False
        """Whether something was committed that a power cut may undo."""
        self._database = database
        self._now_us = now_us
        self._ahead_us = 0
        self._clock_us = 0
        self._statement = 1
        self._conflicts_left = 0
        self._torn_part: float | None = None
        self._processes: list[Sessions] = []
        self.lines = Lines(database, now_us)
        database.empty()

    @property
    def faulty(self) -> bool:
        return bool(self.mode)

    @property
    def hidden(self) -> bool:
        return False

    def process(self, number: int, life: Life) -> Sessions:
        made = Sessions(self, self._database, number, life)
        self._processes.append(made)
        return made

    def rows(self) -> Rows:
        return CommittedRows(self._database.control)

    # -- faults ----------------------------------------------------------------------------------------------

    def fail(self, fault: DiskFault) -> None:
        self.mode, self._statement = fault.mode, fault.statement
        self._conflicts_left = fault.statement

    def mend(self) -> None:
        frozen, self.mode = self.mode == "frozen", ""
        if frozen:
            self._tell_time()
            self.lines.go_on(carry_out=self._statement % 2 == 1)

    def tear(self, part: float | None) -> None:
        self._torn_part = part

    def leap(self, by_us: int) -> None:
        """Sets the server's clock forward or back; leases are measured by it."""
        self._ahead_us += by_us

    def keep(self) -> None:
        self._database.keep()

    def put_back(self) -> set[str]:
        before = self._ticks()
        for process in self._processes:
            process.break_all()
        self.lines.end_all()
        self._database.put_back()
        after = {engine: tick for engine, _, tick in self._ticks()}
        return {holder for engine, holder, tick in before if holder and after.get(engine, 0) < tick}

    def _ticks(self) -> list[tuple[int, str, int]]:
        return self._database.control.execute("SELECT engine, holder, tick FROM leases").fetchall()

    def power_cut(self) -> None:
        """Ends every connection. Commits that the server synced are kept, all of them."""
        for process in self._processes:
            process.close_all()
        self.lines.end_all()

    def forget_former(self) -> None:
        pass

    # -- rest ------------------------------------------------------------------------------------------------

    def at_rest(self, living: Mapping[str, int]) -> bool:
        if not self.lines.at_rest():
            return False
        engines, holders = list(living.values()), list(living)
        row = self._database.control.execute(
            "SELECT (SELECT count(*) FROM mail WHERE engine = ANY(%s::bigint[])), "
            "(SELECT count(*) FROM payments WHERE open = 1 AND engine != ALL(%s::bigint[])), "
            "(SELECT count(*) FROM leases WHERE holder = ANY(%s))",
            (engines, engines, holders),
        ).fetchone()
        return row == (0, 0, len(living))

    def overdue(self, *, watched: bool) -> str:
        return self.lines.overdue(watched=watched and not self.mode) if self.lines.any_cut else ""

    def skip(self, idle_us: int, engines: list[int]) -> None:
        self._database.control.execute(
            "UPDATE leases SET expires_us = expires_us + %s WHERE engine = ANY(%s::bigint[])", (idle_us, engines)
        )

    def examine(self) -> Report:
        report = examine_postgresql(self._database.url)
        if self.unsynced:
            report.find("commits were acknowledged that the server had not synced (synchronous_commit)")
        return report

    def close(self) -> None:
        for process in self._processes:
            process.close_all()
        self.lines.end_all()

    # -- called by sessions ------------------------------------------------------------------------------------

    def opening(self) -> None:
        """A connection is opened."""
        if self.mode == "frozen":
            self.failed += 1
            raise psycopg.OperationalError("connection timeout expired")
        if self.mode.endswith("blind") or self.mode == "unreadable":
            self.failed += 1
            raise psycopg.OperationalError("connection refused")

    def before(self, session: Session, statement: str) -> None:
        """Before each statement."""
        if "clock_timestamp()" in statement:
            self._tell_time()
        mode = self.mode
        if not mode or mode.startswith("commit") or mode in LINE_MODES:
            return
        if mode == "unreadable":
            self._end(session)
        elif mode == "full":
            if not statement.startswith(_READS):
                self._refuse(session, mode)
        elif session.statements >= self._statement and not statement.startswith(_CONTROL):
            if mode == "killed":
                self.mode = ""
                self._end(session)
            elif mode == "eio":
                self._refuse(session, mode)
            elif self._conflicts_left:
                self._conflicts_left -= 1
                self._refuse(session, mode)

    def _tell_time(self) -> None:
        now_us = self._now_us() + self._ahead_us
        if now_us != self._clock_us:
            self._database.set_clock(now_us)
            self._clock_us = now_us

    def cut_after(self, session: Session, statements: Sequence[str]) -> int | None:
        """How many of these statements reach the server before the connection is cut; None if it is not cut. At the
        latest it is cut before the COMMIT, whose answer another fault may lose."""
        if not self.mode.startswith("cut") or not session.writer:
            return None
        first = session.statements - len(statements)
        for place, statement in enumerate(statements):
            if statement == "COMMIT" or (session.in_transaction and first + place >= self._statement):
                return place
        return None

    def cut(self, session: Session) -> None:
        """Cuts the connection. Raises the error that the process sees."""
        mode, self.mode = self.mode, ""
        self.failed += 1
        session.broken = session.left = True
        if mode == "cut_dead":
            # Away for long or not, and as another process or not.
            down_us = 1_000_000 * (1 + self._statement % 3 * 4)
            raise LostError(down_us, renamed=self._statement % 4 == 3)
        raise psycopg.OperationalError("the connection was lost")

    def _refuse(self, session: Session, mode: str) -> None:
        """The server raises an error in place of the next statement."""
        self.failed += 1
        session.send("SELECT fail(%s)", (_REFUSALS[mode],))

    def _end(self, session: Session) -> None:
        """The server ends the connection before the next statement."""
        self.failed += 1
        self._database.end(session.real)

    def commit(self, session: Session, commit: Callable[[], Any]) -> Any:
        """Instead of a COMMIT."""
        torn, mode = self._torn_part, self.mode
        if mode.startswith("commit_lost") or (torn is not None and torn < _TORN_TAKEN):
            self.failed += 1
            session.broken = True
        elif mode.startswith("commit_taken") or torn is not None:
            commit()
            session.flush()
            self.failed += 1
            self.mode = "" if mode == "commit_taken" else mode
            session.broken = True
        if torn is not None:
            self._torn_part = None
            raise TornError
        if session.broken:
            raise psycopg.OperationalError("the connection was lost")
        self.unsynced |= session.unsynced
        return commit()

    def lock_was_held(self, life: Life) -> None:
        """A statement stopped waiting for a lock of a connection that stands still, or that no process uses any
        more."""
        self.failed += 1
        if self.lines.any_cut:
            life.wait(LOCK_WAIT_US)


class Sessions:
    """The connections of one simulated process to the server."""

    def __init__(self, server: Server, database: Database, number: int, life: Life) -> None:
        self.server = server
        self.life = life
        self._database = database
        self._number = number
        self._open: list[Session] = []
        self._journal: PostgresJournal | None = None
        self._memories: dict[str, Memory] = {}
        """The content of the files in its folders, by the process's name."""
        self._mail_ids = PaymentIds(lambda count: bytes(number + 1 for _ in range(count)))

    def connect(self, url: str, *, writer: bool = False) -> Connection:
        """A connection with simulated faults, in the place of gateway.journal.postgres_connection.connect."""
        self.life.step(pause=False)
        self.server.opening()
        session = Session(self, self._database.take(writer=writer), writer)
        self._open.append(session)
        return cast("Connection", session)

    def ended(self, session: Session) -> None:
        """A session is closed: what it had not committed is rolled back."""
        self._open.remove(session)
        if session.unanswered is not None:
            self.server.lines.hold(session.real, session.unanswered, writer=session.writer)
        elif session.left:
            self.server.lines.keep(session.real)
        else:
            self._database.give_back(session.real, writer=session.writer)

    def break_all(self) -> None:
        """The server ends every connection of the process."""
        for session in self._open:
            session.broken = True
            if session.real.info.transaction_status != TransactionStatus.IDLE:
                session.real.execute("ROLLBACK")

    def open_journal(self) -> PostgresJournal:
        postgres_clock.compare_at_start(self._database.url, self.life.clock, connect=self.connect)
        self._journal = PostgresJournal(
            self._database.url,
            holder=self.life.holder,
            network="simulated",
            sleep=lambda _: self.life.step(),
            monotonic=self.life.monotonic_s,
            connect=self.connect,
            memory=self._memories.setdefault(self.life.holder, Memory()),
        )
        return self._journal

    def open_reader(self) -> Reader:
        return PostgresReader(self._database.url, connect=self.connect)

    def join(self, engine: Engine, core: Core) -> Neighbour:
        assert self._journal is not None, "opened before"
        neighbours = SimulatedNeighbours(self._journal, core, engine, self.life, self._mail_ids)
        engine.join(neighbours)
        return neighbours

    def close_all(self) -> None:
        for session in list(self._open):
            session.close()


class Pending:
    """A statement of a pipeline, and its rows after it was answered."""

    __slots__ = ("cursor", "parameters", "statement")

    def __init__(self, statement: str, parameters: Any) -> None:
        self.statement = statement
        self.parameters = parameters
        self.cursor: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cursor, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.cursor)


class Session:
    """A connection, with the part of psycopg's interface that the journal uses."""

    def __init__(self, process: Sessions, real: Connection, writer: bool) -> None:
        self.real = real
        self.writer = writer
        self.unsynced = writer and real.execute("SHOW synchronous_commit").fetchone() != ("on",)
        self.in_transaction = False
        self.statements = 0
        """In this transaction."""
        self.broken = False
        """Whether the process cannot reach the server through it any more."""
        self.left = False
        """Whether the server keeps it open when the process has gone."""
        self.unanswered: list[Pending] | None = None
        """Statements that the server had not answered when the process gave it up."""
        self.silent_s = SILENT_S
        self.info = real.info
        self._closed = False
        self._process = process
        self._sent: list[Pending] | None = None
        """Statements of an open pipeline; None outside of one."""

    def execute(self, statement: str, parameters: Any = None) -> Any:
        """As psycopg's, unless there is a fault."""
        self._usable()
        self._process.life.step(pause=self._sent is None)
        self._usable()
        self.statements += 1
        with self._noting_locks():
            self._process.server.before(self, statement)
            if statement == "COMMIT":
                done = self._process.server.commit(self, lambda: self.send("COMMIT"))
            else:
                done = self.send(statement, parameters)
        if statement.startswith("BEGIN"):
            self.in_transaction, self.statements = True, 0
        elif statement in ("COMMIT", "ROLLBACK"):
            self.in_transaction = False
        return done

    def send(self, statement: str, parameters: Any = None) -> Any:
        """Sends to the server, at once or with the pipeline."""
        pending = Pending(statement, parameters)
        if self._sent is None:
            self._meet_silence([pending])
            if self._process.server.cut_after(self, [statement]) is not None:
                self._process.server.cut(self)
            return self.real.execute(statement, parameters)
        self._sent.append(pending)
        return pending

    def flush(self) -> None:
        """Sends the pipeline to the server, and waits for the answers."""
        sent, self._sent = self._sent or [], None
        self._meet_silence(sent)
        through = self._process.server.cut_after(self, [pending.statement for pending in sent])
        with self._noting_locks(), self.real.pipeline():
            for pending in sent[:through]:
                pending.cursor = self.real.execute(pending.statement, pending.parameters)
        if through is not None:
            self._process.server.cut(self)

    def _meet_silence(self, sent: list[Pending]) -> None:
        """Waits while the server stands still, and then gives it up."""
        server, waited_us = self._process.server, 0
        while server.mode == "frozen":
            server.failed += 1
            if waited_us >= self.silent_s * 1e6 or not self._process.life.wait(LOOK_US):
                self.broken, self.unanswered = True, sent
                raise SilentServerError(f"the database has not answered for {self.silent_s:g} s")
            waited_us += LOOK_US

    def _usable(self) -> None:
        if self.broken or self._closed:
            raise psycopg.OperationalError("the connection is closed")

    @contextmanager
    def _noting_locks(self) -> Iterator[None]:
        try:
            yield
        except errors.LockNotAvailable:
            self._process.server.lock_was_held(self._process.life)
            raise

    @contextmanager
    def pipeline(self) -> Iterator[None]:
        """As psycopg's, but that all is sent at its end: when an error is noticed must not depend on real time."""
        self._usable()
        self._sent = []
        try:
            yield
        except BaseException:
            self._sent = None
            raise
        self.flush()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """As psycopg's."""
        self.execute("BEGIN")
        try:
            yield
        except CrashError:
            raise
        except BaseException:
            if not (self.broken or self._closed):
                self.real.execute("ROLLBACK")
                self.in_transaction = False
            raise
        self.execute("COMMIT")

    def close(self) -> None:
        """As psycopg's."""
        if not self._closed:
            self._closed = True
            self._process.ended(self)


class SimulatedNeighbours(PostgresNeighbours):
    """Without a thread: the world takes its turns. See verification.simulation.storage.Neighbour."""

    def __init__(self, journal: PostgresJournal, core: Core, engine: Engine, life: Life, mail_ids: PaymentIds) -> None:
        super().__init__(journal, core, engine.inbox, clock=life.clock, mail_ids=mail_ids)
        self._life = life

    def _follow(self, one: Any) -> None:
        super()._follow(one)
        self._life.turn_soon()

    @property
    def engine(self) -> int:
        return self._journal.engine

    @property
    def next_beat_us(self) -> int:
        return round(self._next_beat_s * 1_000_000)

    @property
    def waits_us(self) -> int:
        return int((LOOK_S if self._busy or self._troubled else BEAT_S) * 1_000_000)

    @property
    def at_rest(self) -> bool:
        if self.clock.wrong or not self.clock.settled:
            return False
        return not (self._followed or self._done or self._adopted or self._mail or self._fenced or self._troubled)

    def skip(self, idle_us: int) -> None:
        self._next_beat_s += idle_us / 1_000_000
        self._journal.skip(idle_us / 1_000_000)
