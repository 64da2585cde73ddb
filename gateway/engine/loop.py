"""The tick loop: the one thread that takes events, lets the core decide, commits once, and then acts."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from gateway.engine.clock import Clock
from gateway.engine.core import Core
from gateway.engine.counts import Counts, together
from gateway.engine.inbox import Inbox
from gateway.engine.model import (
    Answered,
    Cancel,
    Capture,
    ElsewhereError,
    EngineEvent,
    Expire,
    Join,
    LegOut,
    Payment,
    Refused,
)
from gateway.engine.ports import (
    Call,
    Intake,
    Journal,
    JournalFencedError,
    JournalUnavailableError,
    Link,
    Neighbours,
    Source,
)
from gateway.engine.transitions import Outcome
from hutong_contract.errors import HutongError, Reason

log = logging.getLogger(__name__)

EVENTS_PER_TICK_MAX: Final = 4096
"""Most calls and events taken in one tick, which bounds a tick to some tens of milliseconds."""
IN_FLIGHT_MAX: Final = 8192
"""Payments in flight above which new ones are refused at once (about 2 KB each)."""
IDLE_WAIT_S: Final = 0.5
"""Longest sleep without an event; a bound, not a pace: events wake the engine."""
LOOK_INTERVAL_US: Final = 20_000
"""How often payments in flight are checked for what is overdue, so that they are handled in batches."""
HOLD_LOOK_US: Final = 1_000_000
"""How often the journal is asked for holds that have ended, in microseconds: one indexed query."""
HOLDS_PER_LOOK_MAX: Final = 512
"""Most holds ended in one look; the rest follow in the next. They enter the book beside new payments."""
COMMIT_RETRY_S: Final = 0.1
"""Time between attempts to commit while the journal cannot be written, in seconds."""
HELD_EVENTS_MAX: Final = 100_000
"""Most answers of participants kept while the journal cannot be written; further ones are dropped and inquired about
later."""
DRAIN_TICK_S: Final = 0.01
SILENT_S: Final = 1.5
"""After this many seconds without an answer of the journal, callers are told at once that it does not answer."""
END_S: Final = 2.0
"""How long the engine may take to end after it is told to, in seconds; then its wait for the journal is given up."""
GIVEN_UP_S: Final = 5.0
"""After that: until a connection that is being opened has failed, in seconds."""
DRAIN_LOOK_S: Final = 0.1


class Engine:
    """Runs the core on a journal, with links to participants and fronts for callers."""

    def __init__(
        self,
        core: Core,
        journal: Journal,
        link: Link,
        intake: Intake,
        *,
        clock: Clock | None = None,
        in_flight_max: int = IN_FLIGHT_MAX,
        on_commit: Callable[[], None] = lambda: None,
        observe: Callable[[str, bool, int, int, int], None] = lambda *_: None,
        on_refusal: Callable[[Payment, bool], None] = lambda *_: None,
        on_step: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`observe` receives how participants answer: who, whether in time, mean latency in microseconds, when, and how
        many answers. `on_refusal` receives each payment that the journal did not admit, and whether it repeats another.
        `on_step` receives by how many microseconds the clock stepped, before anything is done by its new time."""
        self.inbox: Inbox[EngineEvent] = Inbox()
        """Events from other threads. Calls wait at their fronts."""
        self.counts = Counts()
        self.in_flight_max = in_flight_max
        self._core = core
        self._journal = journal
        self._link = link
        self._intake = intake
        self._clock = clock or Clock()
        self._on_commit = on_commit
        self._observe = observe
        self._on_refusal = on_refusal
        self._on_step = on_step
        self._stepped_us = self._clock.stepped_us
        self._neighbours: Neighbours | None = None
        self._sources: list[Source] = []
        self._events: list[EngineEvent] = []
        self._in_hand: list[Call] = []
        """Calls that the intake is working on. They are answered too if a defect ends the engine meanwhile, and so are
        the callers behind `_deciding`; a transport ignores a second answer."""
        self._deciding: Sequence[EngineEvent] = ()
        """Events of the current tick."""
        self._stalled: Outcome | None = None
        self._next_look_us = 0
        self._next_hold_look_us = 0
        self._draining = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._waiting_since_s: float | None = None
        """When the current tick began, or the first of those that could not be committed."""
        self.failure: BaseException | None = None
        """Why the engine's thread ended, unless it was told to."""

    # -- life ------------------------------------------------------------------------------------------

    def add_source(self, source: Source) -> None:
        """Adds a front that the engine empties. Call it before `start`."""
        self._sources.append(source)

    def join(self, neighbours: Neighbours) -> None:
        """Shares the journal with other engines. Call it before `start`."""
        self._neighbours = neighbours

    def recover(self) -> int:
        """Loads what was in flight when the journal was last written; its timers settle it. Returns the number of
        payments."""
        payments = self._journal.load_open()
        self._core.load(payments)
        return len(payments)

    def start(self) -> None:
        """Runs the loop in a thread of its own."""
        if self._neighbours is not None:
            self._neighbours.start()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def drain(self, grace_s: float) -> bool:
        """Admits nothing more, waits up to `grace_s` until nothing is in flight, and stops; at once if the journal does
        not answer, since then nothing ends. What is left is settled after the next start. Returns whether nothing was
        left."""
        self._draining.set()
        if self._neighbours is not None:
            self._neighbours.retire()
        self.inbox.wake()
        if self._thread is not None:
            until_s = time.monotonic() + grace_s
            while self._thread.is_alive() and not self.silent and (left_s := until_s - time.monotonic()) > 0:
                self._thread.join(min(left_s, DRAIN_LOOK_S))
            self._stopped.set()
            self.inbox.wake()
            self._thread.join(0.0 if self.silent else END_S)
            if self._thread.is_alive():
                log.error(
                    "the journal does not answer: what waits for it is given up, and settled after the next start"
                )
                self._journal.give_up()
                self._thread.join(GIVEN_UP_S)
        return not self._core.book

    @property
    def silent(self) -> bool:
        """Whether the journal has not answered for a while, so that nothing can be admitted or ended. From any
        thread."""
        since_s = self._waiting_since_s
        if since_s is not None and time.monotonic() - since_s > SILENT_S:
            return True
        return self._neighbours is not None and not self._neighbours.answering

    @property
    def writable(self) -> bool:
        """Whether the journal accepts ticks."""
        return self._stalled is None and self.failure is None

    @property
    def serving(self) -> bool:
        """Whether payments are accepted: the journal accepts ticks, and the clock is right as far as is known."""
        return self.writable and not self._clock.wrong

    @property
    def next_hold_look_us(self) -> int:
        """When the journal is next asked for holds that have ended."""
        return self._next_hold_look_us

    @property
    def in_flight(self) -> int:
        """Payments in flight."""
        return len(self._core.book)

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                if not self._timed_tick():
                    if self._draining.is_set() and not self._core.book and not len(self.inbox):
                        break
                    self._sleep()
        except JournalFencedError as error:
            self.failure = error
            log.critical("the engine stopped: %s", error)
        except BaseException as error:
            self.failure = error
            log.critical("the engine stopped by a defect; what is in flight is settled after a restart", exc_info=error)
            for call in self._in_hand:
                call.fail(self._farewell())
            _refuse(self._deciding, self._farewell())
            raise
        finally:
            self.end()

    def _timed_tick(self) -> bool:
        if self._stalled is None:
            self._waiting_since_s = time.monotonic()
        busy = self.tick()
        if self._stalled is None:
            self._waiting_since_s = None
        return busy

    def end(self) -> None:
        """The end, on the engine's thread: all waiting and later callers are answered."""
        self._stopped.set()
        error = self._farewell()
        for source in self._sources:
            source.end(error)
        self._intake.end(error)
        self._refuse_waiting(error)
        self.inbox.end(lambda events: _refuse(events, error))
        if self._neighbours is not None:
            self._neighbours.close()

    def _sleep(self) -> None:
        now_us = self._clock.now_us()
        seconds = DRAIN_TICK_S if self._draining.is_set() else IDLE_WAIT_S
        if self._stalled is not None:
            seconds = COMMIT_RETRY_S
        for due_us in (self._core.next_due_us(), self._link.next_due_us()):
            if due_us is not None:
                seconds = min(seconds, max(0.0, (due_us - now_us) / 1e6))
        if self._core.book:
            # What is overdue by less than this is looked at together.
            seconds = max(seconds, 0.0005)
        for source in self._sources:
            source.idle()
        self.inbox.wait(seconds)

    def _farewell(self) -> HutongError:
        """The error for callers after the engine has ended."""
        reason = Reason.ERROR_REASON_DRAINING if self.failure is None else Reason.ERROR_REASON_INTERNAL
        if isinstance(self.failure, JournalFencedError):
            reason = Reason.ERROR_REASON_JOURNAL_UNAVAILABLE
        return HutongError(reason)

    def _refuse_waiting(self, error: HutongError) -> None:
        """Answers all waiting callers when the engine ends."""
        if self._stalled is not None:
            self._refuse_uncommitted(self._stalled)
        try:
            events = self._take()
        except JournalFencedError:
            events = self._take()  # heartbeats noticed too what ended this engine, and say it once
        _refuse(events, error)
        for payment in self._core.book.values():
            for waiter, _ in payment.waiters:
                waiter.fail(error)
            for canceller in payment.cancellers:
                canceller.fail(error)

    # -- one tick --------------------------------------------------------------------------------------

    def tick(self) -> bool:
        """Takes what waits, decides, commits, acts. Returns whether there was anything to do."""
        if self._clock.stepped_us != self._stepped_us:
            self._follow_clock()
        now_us = self._clock.now_us()
        if self._stalled is not None and not self._commit_again(now_us):
            return False
        taken = self._take()
        events, self._events = self._events, []
        events.extend(self._link.poll(now_us))
        events.extend(taken)
        self._deciding = events
        self._in_hand = calls = self._take_calls()
        look = now_us >= self._next_look_us
        prepares = bool(calls) or self._intake.waiting
        if prepares:
            self._prepare(calls, events, now_us)
        self._in_hand = []
        try:
            if now_us >= self._next_hold_look_us:
                events.extend(self._ended_holds(now_us))
            missing = self._core.missing(events)
            if missing:
                self._core.load(self._journal.claim(missing))
                if self._neighbours is not None:
                    self._deciding = events = self._neighbours.divert(events)
        except JournalUnavailableError as error:
            self._put_off(events, error)
            return False
        except JournalFencedError:
            for event in events:
                if not isinstance(event, Answered | Expire):
                    event.waiter.fail(HutongError(Reason.ERROR_REASON_JOURNAL_UNAVAILABLE))
            raise
        if not events and not (look and self._core.book):
            return bool(taken) or prepares
        if look:
            self._next_look_us = now_us + LOOK_INTERVAL_US
        self._core.holds_end = self._clock.settled
        out = self._core.step(events, now_us, look_for_due=look)
        self.counts.ticks += 1
        self._commit(out)
        return True

    def _follow_clock(self) -> None:
        """Adjusts everything timed to a step of the clock."""
        stepped_us = self._clock.stepped_us
        by_us, self._stepped_us = stepped_us - self._stepped_us, stepped_us
        self._core.shift(by_us)
        self._next_look_us = self._next_hold_look_us = 0
        if self._neighbours is not None:
            self._neighbours.shift(by_us)
        self._on_step(by_us)

    def _ended_holds(self, now_us: int) -> list[Expire]:
        """Events for holds that have ended; the first engine that takes up a payment reverses it."""
        self._next_hold_look_us = now_us + HOLD_LOOK_US
        if self._draining.is_set() or not self._clock.settled:
            return []
        return [Expire(payment_id) for payment_id in self._journal.ended_holds(now_us, HOLDS_PER_LOOK_MAX)]

    def _put_off(self, events: list[EngineEvent], error: JournalUnavailableError) -> None:
        """The journal cannot be read: refuses callers, and keeps participants' answers for a later tick."""
        log.error("the journal cannot be read: %s", error)
        self.counts.commit_failures += 1
        refusal = HutongError(Reason.ERROR_REASON_JOURNAL_UNAVAILABLE)
        for event in events:
            if isinstance(event, Answered | Expire):
                self._hold(event)
                continue
            event.waiter.fail(refusal)
            if isinstance(event, Cancel | Join | Capture):
                # It may have been taken up in the journal before that failed: then it is looked at again.
                self._hold(Expire(event.payment_id))

    def _take(self) -> list[EngineEvent]:
        # First what may raise: nothing is taken then.
        events: list[EngineEvent] = []
        if self._neighbours is not None:
            events.extend(self._neighbours.poll(EVENTS_PER_TICK_MAX))
        events.extend(self.inbox.take(EVENTS_PER_TICK_MAX))
        return events

    def _take_calls(self) -> list[Call]:
        """Calls that wait at the fronts."""
        return [call for source in self._sources for call in source.poll(EVENTS_PER_TICK_MAX)]

    def _prepare(self, calls: list[Call], events: list[EngineEvent], now_us: int) -> None:
        if self._draining.is_set():
            self._turn_away(calls, Reason.ERROR_REASON_DRAINING)
            return
        if self._clock.wrong:
            self._turn_away(calls, Reason.ERROR_REASON_CLOCK_WRONG)
            return
        room = self.in_flight_max - len(self._core.book)
        events.extend(self._intake.prepare(calls, now_us, room))

    def _turn_away(self, calls: Sequence[Call], reason: int) -> None:
        """Refuses calls without looking at them, and payments that came back from the intake's workers."""
        error = HutongError(reason)
        for call in calls:
            call.fail(error)
        self._intake.refuse(error)

    def _commit(self, out: Outcome) -> None:
        if out.writes:
            try:
                verdicts = self._journal.commit(out.writes)
            except JournalUnavailableError as error:
                self._stall(out, error)
                return
            except JournalFencedError:
                self._refuse_uncommitted(out)
                raise
            self.counts.commits += 1
        else:
            verdicts = []
        self._act(out, verdicts)

    def _act(self, out: Outcome, verdicts: Sequence[Refused | None]) -> None:
        effects = self._core.settle(out, verdicts)
        for waiter, body in effects.answers:
            waiter.answer(body)
        for waiter, error in effects.errors:
            if self._neighbours is not None and isinstance(error, ElsewhereError):
                self._neighbours.follow(error.payment_id, waiter, error.reply_by_us)
            else:
                waiter.fail(error)
        self._count(out, verdicts)
        if effects.legs:
            self._send(effects.legs, out.now_us)
        if out.writes:
            self._on_commit()

    def _send(self, legs: Sequence[LegOut], now_us: int) -> None:
        self._events.extend(self._link.send(legs, now_us))

    def _count(self, out: Outcome, verdicts: Sequence[Refused | None]) -> None:
        counts = self.counts
        refused = sum(verdict is not None for verdict in verdicts)
        counts.refused += refused
        if refused:
            for create, verdict in zip(out.creates, verdicts, strict=True):
                if verdict is not None:
                    self._on_refusal(create.payment, verdict.standing is not None)
        counts.admitted += len(verdicts) - refused
        for participant, well, latency_us, count in together(out.observations):
            self._observe(participant, well, latency_us, out.now_us, count)
        for what, count in out.anomalies.items():
            counts.anomalies[what] = counts.anomalies.get(what, 0) + count

    # -- when the journal cannot be written ----------------------------------------------------------------

    def _stall(self, out: Outcome, error: JournalUnavailableError) -> None:
        """Stops acknowledging. New requests are refused; payments in flight wait, with their answers."""
        if self._stalled is None:
            log.error("the journal cannot be written, nothing is acknowledged until it can: %s", error)
        self.counts.commit_failures += 1
        for waiter in out.asking():
            waiter.fail(HutongError(Reason.ERROR_REASON_JOURNAL_UNAVAILABLE))
        out.closers.clear()
        out.writes.closings.clear()
        out.declines.clear()
        out.writes.refusals.clear()
        out.creates.clear()
        out.writes.admissions.clear()
        self._stalled = out

    def _refuse_uncommitted(self, out: Outcome) -> None:
        """Answers callers of a tick that this engine will never commit; nobody is told what it decided."""
        error = HutongError(Reason.ERROR_REASON_JOURNAL_UNAVAILABLE)
        for waiter in out.asking():
            waiter.fail(error)
        for waiter, _ in (*out.answers, *out.errors):
            waiter.fail(error)

    def _commit_again(self, now_us: int) -> bool:
        """Tries again to commit the tick that could not be committed; meanwhile refuses new calls and keeps answers."""
        out = self._stalled
        assert out is not None, "called only while stalled"
        for event in self._take():
            if isinstance(event, Answered | Expire):
                self._hold(event)
            else:
                event.waiter.fail(HutongError(Reason.ERROR_REASON_JOURNAL_UNAVAILABLE))
        self._turn_away(self._take_calls(), Reason.ERROR_REASON_JOURNAL_UNAVAILABLE)
        for answer in self._link.poll(now_us):
            self._hold(answer)
        try:
            if self._journal.last_was_taken():
                # It was durable after all, admissions included, whose callers were told to repeat.
                self._core.load(self._journal.load_open())
            elif out.writes:
                self._journal.commit(out.writes)
        except JournalUnavailableError:
            self.counts.commit_failures += 1
            return False
        log.warning("the journal can be written again")
        self._stalled = None
        self._act(out, [])
        return True

    def _hold(self, event: Answered | Expire) -> None:
        if len(self._events) < HELD_EVENTS_MAX:
            self._events.append(event)
        else:
            self.counts.dropped_answers += 1


def _refuse(events: Iterable[EngineEvent], error: HutongError) -> None:
    """Answers waiting callers with an error. Participants' answers have no caller."""
    for event in events:
        if not isinstance(event, Answered | Expire):
            event.waiter.fail(error)
