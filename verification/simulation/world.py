"""Plays a plan: virtual time, an engine that crashes and restarts, and repairs after which everything must settle."""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from gateway.calls import CANCEL, CAPTURE
from gateway.engine.clock_watch import AHEAD_US, BACK_US
from gateway.engine.model import Answered, Payment
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError
from verification.simulation import plan as plans
from verification.simulation.callers import (
    SimulatedCall,
    SimulatedTokens,
    cancel_call,
    capture_call,
    create_call,
    refund_call,
)
from verification.simulation.links import Network
from verification.simulation.node import ENGINE, NEIGHBOURS, START_US, Node
from verification.simulation.plan import DAY, SECOND, Pay, Plan, Refund
from verification.simulation.readers import Query, Reading, Watcher
from verification.simulation.result import Result
from verification.simulation.storage import Storage
from verification.simulation.streams import SimulatedLink
from verification.simulation.witness import Witness

SET_RIGHT_US: Final = 8 * SECOND
"""After this somebody sets a wrong clock right, where it is noticed."""
EARLY_US: Final = 3 * SECOND
"""How much before its true time a hold may end: clocks agree within two seconds."""
NOT_SERVED: Final = "a journal that lost commits is not served"
NOTICED_US: Final = 5 * SECOND
STEPS_MAX: Final = 60_000
"""Moments of one run; one that needs more does not come to rest."""
NEVER: Final = 1 << 62
LOOK_US: Final = 50_000
"""After something happened, engines on one journal look at each other's mail within this time."""
SKIP_US: Final = 4 * SECOND
"""Idle time from which engines are taken to have kept their leases, instead of playing each heartbeat."""
TAKEN_OVER_US: Final = 60 * SECOND
"""Idle time after which everything that an engine left must have been taken over."""


class World:
    """One run of one plan on a storage of its own."""

    def __init__(self, plan: Plan, storage: Callable[[Callable[[], int]], Storage], *, trace: bool = False) -> None:
        """`storage` is made with a function that tells the time, in microseconds since the Unix epoch."""
        self.plan = plan
        self.result = Result(plan.seed)
        self.now_us = 0
        self._trace = trace
        self._digest = hashlib.blake2b(digest_size=8)
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.witness = Witness(plan, lambda: self.now_us, self.say)
        self.network = Network(plan, self.witness, self, self._deliver, self.say, self._notice)
        self.reading = Reading(self.witness.complain, lambda: self.witness.reader)
        self.watchers: list[Watcher] = []
        self._reads: Counter[int] = Counter()
        self.storage = storage(lambda: START_US + self.now_us)
        self._active_us = 0
        self._pauses = 0
        self.lost: set[int] = set()
        """Engines whose commits the journal lost."""
        self.over = False
        """Whether the run ends here: what it rests on is gone."""
        self.believed_us: dict[int, int] = {}
        """By how much an engine's time may be ahead, where its machine's clock was wrong and nothing could say so."""
        self._server_ahead_us = 0
        self._armed: list[plans.Crash] = []
        self._turns: Counter[int] = Counter()
        """How many times each operation was asked for: callers take the engines in turn."""
        self._pays = {item.op: item for item in plan.items if isinstance(item, Pay)}
        self.tokens = SimulatedTokens(plan.caps, self._pays)
        self.nodes = [Node(self, number) for number in range(plan.nodes)]
        self._play: dict[type, Callable[[Any], None]] = {
            Pay: self._play_request,
            Refund: self._play_request,
            plans.Again: self._play_again,
            plans.Capture: self._play_capture,
            plans.Cancel: self._play_cancel,
            plans.Read: self._play_read,
            plans.CloseWindow: self._play_closing,
            plans.Watch: self._play_watch,
            plans.Crash: self._play_crash,
            plans.Pause: self._play_pause,
            plans.TornCommit: self._play_torn,
            plans.DiskFault: self._play_disk,
            plans.Down: self._play_down,
            plans.Slow: self._play_slow,
            plans.StreamBreak: self._play_break,
            plans.StreamStall: self._play_stall,
            plans.SecondStream: self._play_second,
            plans.ClockJump: self._play_jump,
            plans.ServerClockJump: self._play_server_jump,
            plans.WentBack: self._play_went_back,
        }

    def add_pay(self, pay: Pay) -> None:
        """A payment that the plan does not know of, so that its token leads somewhere."""
        self._pays[pay.op] = pay

    # -- time ------------------------------------------------------------------------------------------------

    def after(self, delay_us: int, do: Callable[[], None]) -> None:
        """Does something later."""
        heapq.heappush(self._queue, (self.now_us + delay_us, next(self._order), do))

    def say(self, text: str) -> None:
        """A line of the trace, and of the digest."""
        line = f"{self.now_us / SECOND:14.6f} {text}"
        self._digest.update(line.encode())
        if self._trace:
            self.result.trace.append(line)

    def begin(self) -> None:
        """Schedules the plan and starts the engine."""
        for item in self.plan.items:
            self.after(item.at_us, partial(self._play[type(item)], item))
        self.after(self.plan.heal_us, self._heal)
        for node in self.nodes:
            node.start()

    def run(self) -> bool:
        """Until nothing is under way any more. Returns whether that came to be."""
        for _ in range(STEPS_MAX):
            if self.witness.violations or self.over:
                return True
            if not self._advance(NEVER - 1):
                return True
        self.witness.complain("everything is settled in the end", f"not at rest after {STEPS_MAX} steps")
        return False

    def stand_still(self, number: int, lasts_us: int) -> None:
        """One engine stands still; all else goes on, until its time is over."""
        until_us = self.now_us + lasts_us
        self.result.faults["pause"] += 1
        self._pauses += 1
        self.witness.clocks_differ = self.witness.disk_failed = True  # its lease may run out
        self.say(f"engine {number} stands still")
        while not self.witness.violations and self._advance(until_us):
            pass
        self.now_us = max(self.now_us, until_us)
        self._pauses += 1
        self.say(f"engine {number} goes on")

    def _advance(self, until_us: int) -> bool:
        """Does what comes next; False where that is later, or nothing."""
        if late := self.storage.overdue(watched=any(node.tries for node in self.nodes)):
            self.witness.complain("what a dead machine kept locked is freed within three leases", late)
        tick_at, ticking = self._next(ENGINE)
        turn_at, turning = self._next(NEIGHBOURS)
        queued_at = self._queue[0][0] if self._queue else NEVER
        at_us = min(tick_at, queued_at)
        if turn_at < at_us:
            if self._at_rest():
                if min(at_us, until_us) >= NEVER - 1:
                    return False
                self._leave_out_turns(min(at_us, until_us))
                turn_at, turning = self._next(NEIGHBOURS)
            if turn_at < at_us:
                return self._take_turn(turn_at, turning, until_us)
        if at_us > until_us:
            return False
        if tick_at <= queued_at:
            if tick_at - self.now_us > DAY and self.nodes[ticking].core.book:
                text = f"payments of engine {ticking} wait for {(tick_at - self.now_us) / DAY:.0f} days"
                self.witness.complain("everything is settled in the end", text)
            self.now_us = max(self.now_us, tick_at)
            self.nodes[ticking].tick()
        else:
            _, _, do = heapq.heappop(self._queue)
            self.now_us = max(self.now_us, queued_at)
            do()
            self._something_happened()
        return True

    def _next(self, thread: str) -> tuple[int, int]:
        moments = ((node.next_at_us(thread), node.number) for node in self.nodes)
        return min((NEVER if at_us is None else at_us, number) for at_us, number in moments)

    def _something_happened(self) -> None:
        self._active_us = self.now_us
        for node in self.nodes:
            if node.turn_at_us is not None:
                node.turn_at_us = min(node.turn_at_us, self.now_us + LOOK_US)

    def _at_rest(self) -> bool:
        """Whether engines on one journal have nothing to learn from each other, until something else happens."""
        awake = {node.holder: node.neighbours for node in self.nodes if node.awake and node.neighbours is not None}
        return all(neighbours.at_rest for neighbours in awake.values()) and self.storage.at_rest(
            {holder: neighbours.engine for holder, neighbours in awake.items()}
        )

    def _leave_out_turns(self, next_us: int) -> None:
        """At rest until then: turns are left out that are not heartbeats, and in a long time these too, as if they had
        been."""
        idle_us = next_us - self.now_us
        engines: list[int] = []
        for node in self.nodes:
            if node.awake and node.neighbours is not None and node.turn_at_us is not None:
                if idle_us < SKIP_US:
                    node.turn_at_us = max(node.turn_at_us, node.neighbours.next_beat_us)
                else:
                    node.turn_at_us = next_us + LOOK_US
                    node.neighbours.skip(idle_us)
                    engines.append(node.neighbours.engine)
        if engines:
            self.storage.skip(idle_us, engines)

    def let_pass(self, idle_us: int) -> None:
        """So much time passes."""
        self.after(idle_us, lambda: None)
        self.run()

    def _take_turn(self, at_us: int, number: int, until_us: int) -> bool:
        if at_us > until_us or at_us - self._active_us > TAKEN_OVER_US:
            return False
        self.now_us = max(self.now_us, at_us)
        self.nodes[number].turn()
        return True

    @property
    def in_flight(self) -> list[str]:
        """Payments that engines hold."""
        return sorted(
            f"{payment.payment_id.hex()} {payment.state.name}"
            for node in self.nodes
            for payment in node.core.book.values()
        )

    def cut_power(self, down_us: int = SECOND) -> None:
        """The machine loses power now, and starts again."""
        self.say("the power fails")
        self.storage.power_cut()
        self.witness.close()
        for node in self.nodes:
            node.vanish()
            self.after(down_us, node.start)
        self.storage.forget_former()

    def _deliver(self, answered: Answered, node: int, epoch: int) -> None:
        if not self.nodes[node].deliver(answered, epoch):
            self.result.faults["answer_to_nobody"] += 1

    # -- callers ---------------------------------------------------------------------------------------------

    def submit(self, call: SimulatedCall, node: int | None = None) -> None:
        """A request arrives at one of the engines, unless it is dead."""
        number = self._turns[call.op] % len(self.nodes) if node is None else node
        self._turns[call.op] += 1
        call.published = len(self.witness.claims.published)
        if self.nodes[number].submit(call) and call.method not in (CANCEL, CAPTURE):
            self.witness.submitted.add((call.op, call.other))

    def told(self, call: SimulatedCall, answer: bytes | HutongError) -> None:
        """The gateway answers a call."""
        node = self.nodes[call.node]
        node.step()
        if call.lost:
            self.witness.complain("a dead engine is silent", f"operation {call.op} was answered by it")
            return
        call.answers += 1
        if call.answers > 1:
            self.witness.complain("each request has one answer", f"operation {call.op} got {answer!r} too")
            return
        node.calls.remove(call)
        call.held_up = call.ask[3] != self._pauses
        self._check_in_time(call, node)
        if isinstance(answer, HutongError):
            self.say(f"operation {call.op} is refused: {answer.name}")
            self.witness.disk_failed |= bool(self.storage.failed)
            self.witness.refused(call, answer)
        elif call.node in self.lost:
            self.witness.complain(NOT_SERVED, f"engine {call.node} answered operation {call.op}")
        else:
            self._digest.update(answer)
            self.witness.answered(call, answer)
            self.say(f"operation {call.op} is answered")

    @property
    def troubles(self) -> tuple[int, int, int]:
        """What may delay an answer: how often the disk failed, the clocks were set, and engines stood still."""
        return self.storage.failed, self.result.faults["clock_jump"], self._pauses

    def _check_in_time(self, call: SimulatedCall, node: Node) -> None:
        asked_us, *troubles = call.ask
        if call.method == CANCEL or call.time_left_us is None or tuple(troubles) != self.troubles:
            return
        late_us = node.clock.now_us() - asked_us - call.time_left_us
        if late_us > 0:
            self.witness.complain(
                "callers are answered in time", f"operation {call.op} was answered {late_us / SECOND} s late"
            )

    def request(self, op: int, other: bool = False) -> SimulatedCall | None:
        """The request of an operation; None where it cannot be asked yet."""
        asked = self.witness.asked.get(op)
        if isinstance(asked, Pay):
            healed = self.now_us >= self.plan.heal_us
            now_us = max(node.clock.now_us() for node in self.nodes) if healed else START_US + self.now_us
            return create_call(asked, other, now_us, self.told)
        if isinstance(asked, Refund):
            original = self.payment_of(asked.of)
            return None if original is None else refund_call(asked, original, other, self.told)
        return None

    def payment_of(self, op: int) -> bytes | None:
        """The payment of an operation, once its debit left or a caller was told of it."""
        known = self.witness.payment_of.get(op)
        if known is None:
            label = str(op)
            known = next(
                (leg_id[:16] for leg_id in self.witness.carried if self.witness.labels[leg_id[:16]] == label), None
            )
        return known

    def _play_request(self, item: Pay | Refund) -> None:
        self._ask(item.op, other=False)

    def _play_again(self, item: plans.Again) -> None:
        self._ask(item.op, other=item.other)

    def _ask(self, op: int, *, other: bool) -> None:
        call = self.request(op, other)
        if call is not None:
            self.say(f"operation {op} is asked for{' with another payload' if other else ''}")
            self.submit(call)

    def _play_capture(self, item: plans.Capture) -> None:
        payment_id = self.payment_of(item.of)
        if payment_id is not None:
            self.say(f"operation {item.of} is to be captured: {item.amount_minor}")
            self.witness.captures.setdefault(item.of, set()).add(item.amount_minor)
            call = capture_call(item.of, payment_id, item.amount_minor, self.told)
            self.submit(call, self.network.sender(payment_id))

    def _play_cancel(self, item: plans.Cancel) -> None:
        payment_id = self.payment_of(item.of)
        if payment_id is not None:
            self.say(f"operation {item.of} is to be cancelled")
            self.witness.cancelled.add(item.of)
            self.submit(cancel_call(item.of, payment_id, self.told), self.network.sender(payment_id))

    def _play_closing(self, item: plans.CloseWindow) -> None:
        number = self.witness.windows.last + item.ahead
        if number > 0:
            self.close_window(number, item.node)

    def close_window(self, number: int, node: int = 0) -> None:
        """An operator asks one of the engines to close a window."""
        self.say(f"window {number} is to be closed")
        self._notice("closing")
        self.nodes[node % len(self.nodes)].close_window(number)

    def _play_read(self, item: plans.Read) -> None:
        payment_id = self.payment_of(item.of)
        if payment_id is not None:
            self._reads[item.of] += 1
            floor = self.reading.floor(payment_id)
            node = self.nodes[self._reads[item.of] % len(self.nodes)]
            self.result.faults["status_query"] += item.times
            node.ask([Query(payment_id, floor, lambda *told: self._shown(node, *told)) for _ in range(item.times)])

    def _shown(self, node: Node, query: Query, answer: pb.GetPaymentResponse | HutongError) -> None:
        """A status query is answered."""
        node.answered(query)
        query.answers += 1
        if query.lost or query.answers > 1:
            self.witness.complain(
                "each request has one answer", "a status query had another, or one from a dead engine"
            )
        elif isinstance(answer, pb.GetPaymentResponse):
            self._digest.update(answer.SerializeToString(deterministic=True))
            self.witness.read(query.payment_id, answer)
            self.reading.shown(query.payment_id, answer.payment.state, query.floor)
        elif answer.name != "JOURNAL_UNAVAILABLE" or not (self.storage.failed or self.witness.disk_failed):
            self.witness.complain("what is known can be read", f"{query.payment_id.hex()}: {answer.name}")

    def _play_watch(self, item: plans.Watch) -> None:
        payment_id = None if item.of is None else self.payment_of(item.of)
        if item.of is None or payment_id is not None:
            self.watchers.append(Watcher(item, payment_id, self.witness.complain))
            self.watch(self.watchers[-1])

    def watch(self, watcher: Watcher) -> None:
        """A watcher begins a stream at whichever engine lives, or tries again later."""
        self.result.faults["watch"] += 1
        turn = self.result.faults["watch"]
        nodes = [self.nodes[(turn + place) % len(self.nodes)] for place in range(len(self.nodes))]
        if not any(node.watch(watcher) for node in nodes):
            self.after(SECOND, lambda: self.watch(watcher))

    # -- faults ----------------------------------------------------------------------------------------------

    def _play_crash(self, item: plans.Crash) -> None:
        if item.armed_by:
            self._armed.append(item)
        else:
            self.nodes[item.node].crash_soon(item)

    def _notice(self, kind: str) -> None:
        """Something happened that a crash may be counted from."""
        for item in self._armed:
            if item.armed_by == kind:
                self._armed.remove(item)
                self.nodes[item.node % len(self.nodes)].crash_soon(item)
                return

    def _play_torn(self, item: plans.TornCommit) -> None:
        self.storage.tear(item.part)

    def _play_disk(self, item: plans.DiskFault) -> None:
        self.result.faults[f"disk_{item.mode}"] += 1
        self.say(f"the disk fails: {item.mode}")
        self.storage.fail(item)
        self.after(item.lasts_us, self._mend_disk)

    def _mend_disk(self) -> None:
        self.storage.mend()
        self.say("the disk works")

    def _play_down(self, item: plans.Down) -> None:
        self.result.faults["participant_restarted"] += 1
        self.say(f"{item.participant} ends and forgets what it had not synced")
        self.network.restart(item.participant)
        self.after(min(item.noticed_us, item.lasts_us), lambda: self._notice_down(item.participant))
        self.after(item.lasts_us, lambda: self._bring_up(item.participant))

    def _notice_down(self, name: str) -> None:
        participant = self.network.participants[name]
        participant.known_down = participant.down
        if participant.down:
            for node in self.nodes:
                if node.link is not None:
                    node.link.break_off(name)

    def _bring_up(self, name: str) -> None:
        """It connects again, also where nobody noticed that it was gone."""
        participant = self.network.participants[name]
        participant.down = participant.known_down = False
        self.say(f"{name} is back")
        for node in self.nodes:
            if node.link is not None:
                node.link.take_over(name)

    def _link_of(self, item: plans.StreamBreak | plans.StreamStall | plans.SecondStream) -> SimulatedLink | None:
        return self.nodes[item.node % len(self.nodes)].link

    def _play_break(self, item: plans.StreamBreak) -> None:
        link = self._link_of(item)
        if link is not None:
            self.result.faults["stream_broken"] += 1
            link.break_off(item.participant)
            self.after(item.lasts_us, link.open_all)

    def _play_stall(self, item: plans.StreamStall) -> None:
        link = self._link_of(item)
        if link is not None:
            self.result.faults["stream_stalled"] += 1
            link.stall(item.participant)
            self.after(item.lasts_us, lambda: link.go_on(item.participant))

    def _play_second(self, item: plans.SecondStream) -> None:
        link = self._link_of(item)
        if link is not None and not self.network.participants[item.participant].known_down:
            self.result.faults["stream_taken_over"] += 1
            if item.armed:
                link.arm(item.participant)
            else:
                link.take_over(item.participant)

    def _play_slow(self, item: plans.Slow) -> None:
        self.result.faults["participant_slow"] += 1
        self.say(f"{item.participant} is slow")
        self.network.participants[item.participant].sync_us = item.sync_us
        self.after(item.lasts_us, lambda: self._make_quick(item.participant))

    def _make_quick(self, name: str) -> None:
        self.network.participants[name].sync_us = 0
        self.network.sync(name)

    def _play_jump(self, item: plans.ClockJump) -> None:
        self.result.faults["clock_jump"] += 1
        self.say(f"the clock leaps by {item.by_us / SECOND} s")
        self.witness.clocks_differ = True
        for node in self.nodes:
            self.set_clock(node.number, item.by_us)

    def set_clock(self, number: int, by_us: int) -> None:
        """A machine's clock is set. Where there is another to compare it with, somebody sets it right after a while;
        else whoever runs there looks at it each second, which is played where it matters."""
        node = self.nodes[number]
        ahead_us = node.clock.ahead_us = node.clock.ahead_us + by_us
        if self.storage.has_clock:
            self.after(SET_RIGHT_US, lambda: self._set_right(node))
            return
        for at_us in (0, SECOND, BACK_US + 2 * SECOND, AHEAD_US + 2 * SECOND):
            self.after(at_us, node.look_at_clock)

        def believe() -> None:
            if node.clock.ahead_us == ahead_us:
                self.believed_us[node.number] = ahead_us

        self.after((BACK_US if by_us < 0 else AHEAD_US) - SECOND, believe)
        node.wake()

    def _set_right(self, node: Node) -> None:
        if node.clock.ahead_us:
            self.say(f"the clock of engine {node.number}'s machine is set right")
            node.clock.ahead_us = 0

    def look_at_ended_hold(self, payment: Payment) -> None:
        """A hold was ended because its time is over: it must be, by true time, unless a clock was wrong for so long
        that it had to be believed."""
        believed_us = max(0, *self.believed_us.values()) if self.believed_us else 0
        early_us = payment.hold_until_us - START_US - self.now_us - believed_us
        if early_us > EARLY_US:
            text = f"{payment.payment_id.hex()} was ended {early_us / SECOND:.0f} s before its time"
            self.witness.complain("a wrong clock ends no hold", text)

    def _play_went_back(self, item: plans.WentBack) -> None:
        self.storage.keep()
        self.after(item.lasts_us, self._put_back)

    def _put_back(self) -> None:
        """The database is as it was. Whoever committed something since must notice, and serve nobody any more."""
        alive = {node.holder: node for node in self.nodes if node.engine is not None}
        holders = self.storage.put_back()
        self.result.faults["went_back"] += 1
        self.say("the journal went back")
        self.witness.disk_failed = True
        if not holders:
            return
        self.lost = {alive[holder].number for holder in holders if holder in alive}
        self.witness.only = NOT_SERVED
        self._armed.clear()
        for node in self.nodes:
            node.spare()
        self.after(NOTICED_US, self._look_whether_noticed)

    def _look_whether_noticed(self) -> None:
        for number in self.lost:
            if self.nodes[number].engine is not None:
                self.witness.complain(NOT_SERVED, f"engine {number} goes on")
        self.over = True

    def _play_pause(self, item: plans.Pause) -> None:
        self.nodes[item.node].pause_soon(item)

    def _play_server_jump(self, item: plans.ServerClockJump) -> None:
        self.result.faults["server_clock_jump"] += 1
        self.say(f"the clock of the journal's server leaps by {item.by_us / SECOND} s")
        self.witness.disk_failed = self.witness.clocks_differ = True  # leases may run out
        self._leap_server(item.by_us)
        self.after(SET_RIGHT_US, lambda: self._leap_server(-self._server_ahead_us))

    def _leap_server(self, by_us: int) -> None:
        self._server_ahead_us += by_us
        self.storage.leap(by_us)

    def _heal(self) -> None:
        """From now on nothing breaks."""
        self.say("all is repaired")
        self.storage.mend()
        self.storage.tear(None)
        self._armed.clear()
        self._leap_server(-self._server_ahead_us)
        for name, participant in self.network.participants.items():
            participant.down = participant.known_down = False
            self._make_quick(name)
        for node in self.nodes:
            node.spare()
            if self.storage.has_clock:
                node.clock.ahead_us = 0
            if node.link is not None:
                node.link.open_all()
            node.start()

    def close(self) -> Result:
        """Ends the run."""
        for node in self.nodes:
            node.vanish()
        self.witness.close()
        self.storage.close()
        result = self.result
        result.violations = self.witness.violations
        result.states = self.witness.claims.states
        result.faults.update(self.network.counts)
        result.fates = self.network.fates
        result.digest = self._digest.hexdigest()
        return result
