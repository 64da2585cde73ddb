"""An independent account of a run: what callers were told, what participants did, and what may never differ.

The witness believes participants (their lines) and its own record of what crossed the border. It asks the journal only
for what the gateway itself claims: what is committed, posted and published. Rules are named by the faults that every
release must survive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from gateway.calls import CANCEL, CAPTURE
from gateway.engine.answer import id_text
from gateway.engine.model import INQUIRY_NUMBER_MIN, LegKind, LegOut, LegState
from gateway.engine.states import FINAL, State
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError
from verification.simulation.callers import SimulatedCall, label_of
from verification.simulation.claims import Claims
from verification.simulation.participants import BARRED, DECLINED, DONE, UNDONE, Line, Participant
from verification.simulation.plan import OTHER_PAYLOAD_MINOR, Pay, Plan, Refund
from verification.simulation.storage import Rows
from verification.simulation.windows import Windows

ORIGINALS: Final = frozenset({LegKind.DEBIT, LegKind.CREDIT, LegKind.REFUND, LegKind.AUTHORISATION, LegKind.CAPTURE})
"""Legs that do something, rather than undo or ask."""
VIOLATIONS_MAX: Final = 20
NOTHING_MORE: Final = frozenset({DECLINED, UNDONE, BARRED})
"""States of a line in which its leg has no effect and never will have."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that did not hold."""

    rule: str
    text: str
    at_us: int


class Witness:
    """Watches one run."""

    def __init__(self, plan: Plan, now_us: Callable[[], int], say: Callable[[str], None]) -> None:
        self.plan = plan
        self.violations: list[Violation] = []
        self.participants: Mapping[str, Participant] = {}
        self.asked: dict[int, Pay | Refund] = {item.op: item for item in plan.items if isinstance(item, Pay | Refund)}
        self.submitted: set[tuple[int, bool]] = set()
        """(operation, whether with the other payload) of requests that reached a gateway."""
        self.captures: dict[int, set[int]] = {}
        """Operation to the amounts that captures of it asked for."""
        self.cancelled: set[int] = set()
        """Operations that somebody wanted cancelled."""
        self.labels: dict[bytes, str] = {}
        self.carried: dict[bytes, LegOut] = {}
        """Every leg that left, by its id."""
        self.legs_of: dict[bytes, list[LegOut]] = {}
        """Legs of ORIGINALS that left, by payment."""
        self.told: set[tuple[bytes, int]] = set()
        self.final: dict[bytes, bytes] = {}
        """The first final answer about a payment."""
        self.payment_of: dict[int, bytes] = {}
        self.refusals: dict[int, set[str]] = {}
        self.disk_failed = False
        self.only: str = ""
        """The one rule that is still looked at, once commits were lost that everything else rests on; empty: all."""
        self.clocks_differ = False
        self.windows = Windows(self.complain, lambda: self.reader)
        self.claims = Claims(self.complain, self.carried, self.told)
        self._not_sent: set[bytes] = set()
        self._now_us = now_us
        self._say = say
        self._reader: Rows | None = None

    def complain(self, rule: str, text: str) -> None:
        """Records a violation."""
        if self.only and rule != self.only:
            return
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(Violation(rule, text, self._now_us()))
            self._say(f"VIOLATION of {rule!r}: {text}")

    def open(self, rows: Callable[[], Rows]) -> None:
        """Reads this journal, unless it is read already."""
        self._reader = self._reader or rows()

    def close(self) -> None:
        """Ends the connection."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    @property
    def reader(self) -> Rows:
        """What is committed."""
        assert self._reader is not None, "opened with the journal"
        return self._reader

    # -- what callers see ------------------------------------------------------------------------------------

    def answered(self, call: SimulatedCall, body: bytes) -> None:
        """A caller got a payment."""
        payment = pb.CreatePaymentResponse.FromString(body).payment
        payment_id = bytes.fromhex(payment.payment_id.replace("-", ""))
        known = self.payment_of.setdefault(call.op, payment_id)
        if known != payment_id:
            self.complain("one effect for one key", f"operation {call.op} got payments {id_text(known)} and {payment}")
        if call.method == CAPTURE:
            self._check_capture(call, payment)
        elif call.method != CANCEL:
            self._check_payload(call, payment)
        elif int(payment.state) != State.CANCELLED:
            self.complain("a cancel is answered when it is settled", f"{payment_id.hex()} is {payment.state}")
        self._check_durable(payment_id, payment.state)
        if int(payment.state) in FINAL:
            self._check_final(payment_id, payment, body)
        elif payment_id in self.final and (call.after_end or not call.held_up):
            self.complain("final states never change", f"{payment_id.hex()} had ended and is {payment.state} again")

    def _check_payload(self, call: SimulatedCall, payment: pb.Payment) -> None:
        asked = self.asked[call.op]
        amount = asked.amount_minor + (OTHER_PAYLOAD_MINOR if call.other and isinstance(asked, Pay) else 0)
        if payment.reference != label_of(call.op, call.other) or (
            isinstance(asked, Pay) and (payment.authorised_minor or payment.amount_minor) != amount
        ):
            self.complain(
                "a key with another payload is refused",
                f"operation {label_of(call.op, call.other)} was answered with {payment.reference} "
                f"of {payment.amount_minor}",
            )

    def _check_capture(self, call: SimulatedCall, payment: pb.Payment) -> None:
        """Who captures is told of a payment that was captured so, whatever became of it then."""
        amount = pb.CapturePaymentRequest.FromString(call.payload).amount_minor or payment.authorised_minor
        payment_id = bytes.fromhex(payment.payment_id.replace("-", ""))
        sent = [leg.amount_minor for leg in self.legs_of.get(payment_id, ()) if leg.kind is LegKind.CAPTURE]
        if payment.amount_minor != amount or not set(sent) <= {amount}:
            self.complain("a capture is done once", f"{payment_id.hex()}: {amount} was asked for, told is {payment}")
        if payment.state == pb.PAYMENT_STATE_HELD:
            self.complain("a capture is done once", f"{payment_id.hex()} is answered, and still held")

    def _check_durable(self, payment_id: bytes, state: int) -> None:
        row = self.reader.execute("SELECT state FROM payments WHERE payment_id = ?", (payment_id,)).fetchone()
        if row is None or (state in FINAL and row[0] != state):
            held = "nothing" if row is None else State(row[0]).name
            self.complain(
                "nothing is told before it is durable",
                f"a caller was told {State(state).name} of {payment_id.hex()}, committed is {held}",
            )

    def _check_final(self, payment_id: bytes, payment: pb.Payment, body: bytes) -> None:
        first = self.final.setdefault(payment_id, body)
        if first is not body:
            if first != body:
                self.complain("the same answer for one key", f"{payment_id.hex()}: {payment}")
            return
        refund = payment.kind == pb.PAYMENT_KIND_REFUND
        self.check_truth(payment_id, State(payment.state), payment.issuer_id if refund else payment.acquirer_id)

    def check_truth(self, payment_id: bytes, state: State, creditor: str) -> None:
        """What a final state says must be so at the participants, now and for ever."""
        for leg in self.legs_of.get(payment_id, ()):
            line = self.participants[leg.participant].lines.get(leg.leg_id)
            debit = leg.leg_id[16] == 1 or leg.kind is LegKind.CAPTURE
            if leg.kind is LegKind.CAPTURE and line is None and self._is_off(leg.original_leg_id, leg.participant):
                continue  # it may still arrive, and finds nothing to capture
            wanted = state is State.SUCCEEDED and (debit or (leg.participant == creditor and self._is_last(leg)))
            if line is not None and line.lied:
                continue
            if wanted and (line is None or line.state != DONE):
                self.complain(
                    "what succeeded is done",
                    f"{payment_id.hex()} SUCCEEDED, leg {leg.leg_id[16]} is {line.state if line else 'unknown'} "
                    f"at {leg.participant}",
                )
            elif not wanted and (line is None or line.state not in NOTHING_MORE):
                self.complain(
                    "silence is never guessed to be a failure",
                    f"{payment_id.hex()} ended {state.name}, leg {leg.leg_id[16]} "
                    f"{'may still arrive' if line is None else 'is done'} at {leg.participant}",
                )
        kinds = [leg.kind for leg in self.legs_of.get(payment_id, ())]
        uncaptured = LegKind.AUTHORISATION in kinds and LegKind.CAPTURE not in kinds
        if state is State.SUCCEEDED and (len(kinds) < 2 or uncaptured):
            self.complain("what succeeded is done", f"{payment_id.hex()} SUCCEEDED without a debit or a credit")
        self._check_winner(payment_id, state)

    def _check_winner(self, payment_id: bytes, state: State) -> None:
        """Rule 6: of capture, void and expiry the one won that the state says, and somebody had asked for it."""
        label = self.labels.get(payment_id, "")
        op = int(label.removesuffix("x") or -1)
        kinds = [leg.kind for leg in self.legs_of.get(payment_id, ())]
        if kinds.count(LegKind.CAPTURE) > 1 or (LegKind.CAPTURE in kinds and op not in self.captures):
            self.complain("a hold is captured once", f"{payment_id.hex()} sent {kinds.count(LegKind.CAPTURE)} captures")
        if state is State.CANCELLED and op not in self.cancelled:
            self.complain("nothing is cancelled that nobody cancels", payment_id.hex())

    def _is_off(self, leg_id: bytes, participant: str) -> bool:
        line = self.participants[participant].lines.get(leg_id)
        return line is not None and line.state in NOTHING_MORE

    def _is_last(self, leg: LegOut) -> bool:
        """By number: an engine that stood still may send an earlier one later."""
        return leg.leg_id == max(other.leg_id for other in self.legs_of[leg.leg_id[:16]])

    def refused(self, call: SimulatedCall, error: HutongError) -> None:
        """A caller got an error."""
        self.refusals.setdefault(call.op, set()).add(error.name)
        why = self._unjust(call, error)
        if why:
            self.complain(
                "refusals have their reason",
                f"{error.name} for {'the cancel of ' if call.method == CANCEL else ''}operation "
                f"{label_of(call.op, call.other)}: {why}",
            )

    def read(self, payment_id: bytes, response: pb.GetPaymentResponse) -> None:
        """A status query was answered."""
        state, first = response.payment.state, self.final.get(payment_id)
        if first is not None and pb.CreatePaymentResponse.FromString(first).payment.state != state:
            self.complain("final states never change", f"{payment_id.hex()} is read as {State(state).name}")
        if response.payment.refunded_minor > response.payment.amount_minor:
            self.complain("refunds never exceed the payment", f"{payment_id.hex()} reads {response.payment}")

    def _unjust(self, call: SimulatedCall, error: HutongError) -> str:
        """Why a refusal is wrong; empty where it may be right."""
        name, asked = error.name, self.asked[call.op]
        if name == "JOURNAL_UNAVAILABLE":
            return "" if self.disk_failed else "the disk never failed"
        if name == "CLOCK_WRONG":
            return "" if self.clocks_differ else "the clocks agree"
        if name in ("OVERLOADED", "ACQUIRER_UNAVAILABLE") and call.method != CANCEL:
            return ""
        if call.method == CAPTURE:
            return self._unjust_capture(call, error)
        if call.method == CANCEL:
            if name == "PAYMENT_FINAL":
                request = pb.CancelPaymentRequest.FromString(call.payload)
                self._check_durable(bytes.fromhex(request.payment_id.replace("-", "")), State[error.fields["state"]])
                return ""
            return "the payment is known and can be answered for"
        if name == "IDEMPOTENCY_KEY_REUSED":
            return "" if {(call.op, False), (call.op, True)} <= self.submitted else "the key has one payload"
        if name == "PAYMENT_IN_PROGRESS":
            both = {(call.op, False), (call.op, True)} <= self.submitted
            return "" if both or self.plan.nodes > 1 else "nobody else uses the key"
        return self._unjust_refund(name, asked) if isinstance(asked, Refund) else self._unjust_pay(error, asked, call)

    def _unjust_capture(self, call: SimulatedCall, error: HutongError) -> str:
        request = pb.CapturePaymentRequest.FromString(call.payload)
        asked = self.asked[call.op]
        if error.name == "PAYMENT_NOT_HELD":
            state = State[error.fields["state"]]
            if state in FINAL:
                self._check_durable(bytes.fromhex(request.payment_id.replace("-", "")), state)
            return "it is held" if state is State.HELD else ""
        if error.name == "CAPTURE_DIFFERS":
            other_minor = OTHER_PAYLOAD_MINOR if (call.op, True) in self.submitted else 0
            wholes = {asked.amount_minor, asked.amount_minor + other_minor}  # of whichever payload stands
            differ = any(len({amount or whole for amount in self.captures[call.op]}) > 1 for whole in wholes)
            return "" if differ else "nobody captured another amount"
        if error.name == "CAPTURE_EXCEEDS_HOLD":
            held = int(error.fields["held_minor"])
            return "" if request.amount_minor > held else "it is not more than what is held"
        if error.name == "PAYMENT_IN_PROGRESS" and self.plan.nodes > 1:
            return ""
        return "the payment is known and can be answered for"

    def _unjust_pay(self, error: HutongError, asked: Pay, call: SimulatedCall) -> str:
        name = error.name
        if name in ("DEADLINE_PAST", "FIELD_INVALID"):  # by a clock that is behind, a deadline lies too far ahead
            return "" if self.clocks_differ else "the clocks agree"
        others = [(op, other) for op, other in self.submitted if op != call.op and isinstance(self.asked[op], Pay)]
        if name == "CODE_SPENT" and asked.code is not None:
            spent = any(self._pay(op).code == asked.code for op, _ in others)
            return "" if spent else "nobody else used the code"
        if name == "ORDER_ALREADY_PAID" and asked.order is not None:
            return self._unjust_order(asked, call, error)
        if name == "AMOUNT_ABOVE_LIMIT" and asked.counter is not None:
            most = sum(self.amount_of(op, other) for op, other in others if self._pay(op).counter == asked.counter)
            left = self.plan.caps[asked.counter] - most
            return "" if self.amount_of(call.op, call.other) > left else "the limit leaves room for all"
        return "there is no reason for it"

    def _unjust_order(self, asked: Pay, call: SimulatedCall, error: HutongError) -> str:
        """An order is another payment's that had neither failed nor been refunded in full when this one asked."""
        holder = bytes.fromhex(error.fields["payment_id"].replace("-", ""))
        label = self.labels.get(holder, "")
        op = int(label.removesuffix("x") or -1)
        other = self.asked.get(op)
        if not isinstance(other, Pay) or op == call.op or other.order != asked.order:
            return f"the order is not that of {holder.hex()}"
        before = {(payment_id, state) for _, payment_id, state in self.claims.published[: call.published]}
        if any((holder, int(state)) in before for state in FINAL - {State.SUCCEEDED}):
            return f"{holder.hex()} had taken nothing"
        back = [one for one in self.refunds_of(op) if (one, int(State.SUCCEEDED)) in before]
        if sum(self._credited_back(one) for one in back) >= (sum(self.taken(holder)) or 1):
            return f"{holder.hex()} was refunded in full"
        return ""

    def refunds_of(self, op: int) -> list[bytes]:
        """Refunds of the payment of an operation."""
        refunds = {str(it.op) for it in self.asked.values() if isinstance(it, Refund) and it.of == op}
        return [payment_id for payment_id, label in self.labels.items() if label.removesuffix("x") in refunds]

    def _credited_back(self, payment_id: bytes) -> int:
        lines = self.standing(payment_id, LegKind.REFUND)
        return sum(line.amount_minor for line in lines if line.leg_id[16] > 1)

    def having(self, order: int) -> list[int]:
        """Operations for an order whose payment has taken more than refunds of it gave back."""
        found: list[int] = []
        for payment_id, label in self.labels.items():
            op = int(label.removesuffix("x"))
            asked = self.asked[op]
            if isinstance(asked, Pay) and asked.order == order:
                back = sum(self._credited_back(one) for one in self.refunds_of(op))
                if sum(self.taken(payment_id)) > back:
                    found.append(op)
        return found

    def _unjust_refund(self, name: str, asked: Refund) -> str:
        original = self.payment_of.get(asked.of)
        if name == "PAYMENT_NOT_REFUNDABLE":
            body = self.final.get(original) if original else None
            if body and State(pb.CreatePaymentResponse.FromString(body).payment.state) is State.SUCCEEDED:
                return "the payment succeeded"
            return ""
        if name == "REFUND_EXCEEDS_PAYMENT":
            others = [op for op, _ in self.submitted if isinstance(it := self.asked[op], Refund) and it.of == asked.of]
            limit = min(self.captures.get(asked.of, set()) - {0}, default=self.asked[asked.of].amount_minor)
            return "" if len(others) > 1 or asked.amount_minor >= limit else "nothing else was refunded"
        return "there is no reason for it"

    def _pay(self, op: int) -> Pay:
        pay = self.asked[op]
        assert isinstance(pay, Pay), "asked of payments"
        return pay

    def amount_of(self, op: int, other: bool) -> int:
        """What an operation asks for."""
        return self.asked[op].amount_minor + (OTHER_PAYLOAD_MINOR if other else 0)

    # -- what participants see ---------------------------------------------------------------------------------

    def leaves(self, leg: LegOut) -> None:
        """The engine hands a leg to its link."""
        payment_id, number = leg.leg_id[:16], leg.leg_id[16]
        if number < INQUIRY_NUMBER_MIN and not self._committed(payment_id, number, leg.kind):
            self.complain("no message before it is durable", f"leg {leg.leg_id.hex()} left and is not committed")

    def not_sent(self, leg_id: bytes) -> None:
        """The link says that a leg did not leave and will not."""
        if leg_id in self.carried and self.carried[leg_id].kind in ORIGINALS:
            self.complain("what is said not to be sent is not", f"leg {leg_id.hex()} had left")
        self._not_sent.add(leg_id)

    def sent(self, leg: LegOut) -> None:
        """A leg left the gateway."""
        self.leaves(leg)
        payment_id = leg.leg_id[:16]
        if leg.kind in ORIGINALS and leg.leg_id in self._not_sent:
            self.complain("what is said not to be sent is not", f"leg {leg.leg_id.hex()} left after all")
        if leg.leg_id not in self.carried and leg.kind in ORIGINALS:
            self.legs_of.setdefault(payment_id, []).append(leg)
        self.carried[leg.leg_id] = leg

    def _committed(self, payment_id: bytes, number: int, kind: LegKind) -> bool:
        """Whether the journal has a leg that leaves; the row of a payment stands for its first one."""
        row = self.reader.execute(
            "SELECT kind FROM legs WHERE payment_id = ? AND number = ?", (payment_id, number)
        ).fetchone()
        if row is not None:
            return bool(row[0] == kind)
        (payments,) = self.reader.execute(
            "SELECT count(*) FROM payments WHERE payment_id = ?", (payment_id,)
        ).fetchone()
        return bool(payments and number == 1 and kind in (LegKind.DEBIT, LegKind.AUTHORISATION, LegKind.REFUND))

    def heard(self, participant: str, leg_id: bytes, result: int) -> None:
        """An answer reached the gateway."""
        leg = self.carried.get(leg_id)
        if leg is None or leg.participant != participant:
            return
        about = leg.original_leg_id if leg.kind is LegKind.INQUIRY else leg_id
        self.told.add((about, result))

    def recorded_declined(self, leg_id: bytes) -> bool:
        """Whether the journal has the refusal of a leg."""
        return self._recorded("number = ? AND state = ?", leg_id, leg_id[16], int(LegState.DECLINED))

    def recorded_reversed(self, leg_id: bytes) -> bool:
        """Whether the journal has an answered reversal of a leg."""
        wanted = (int(LegKind.REVERSAL), leg_id[16], int(LegState.APPROVED))
        return self._recorded("kind = ? AND original = ? AND state = ?", leg_id, *wanted)

    def _recorded(self, where: str, leg_id: bytes, *values: int) -> bool:
        statement = f"SELECT 1 FROM legs WHERE payment_id = ? AND {where}"  # noqa: S608 - a constant of this module
        return bool(self._reader and self._reader.execute(statement, (leg_id[:16], *values)).fetchone())

    def effect(self, line: Line, before: str) -> None:
        """A participant did something."""
        if line.state != DONE or before == DONE or line.lied or line.contents is None:
            return
        payment_id, number = line.leg_id[:16], line.leg_id[16]
        if payment_id not in self.labels:
            self.complain("no effect that nobody asked for", f"{line.participant} carried out {line.leg_id.hex()}")
        elif line.kind is LegKind.DEBIT or line.kind is LegKind.AUTHORISATION:
            self._check_debit(line, self.labels[payment_id])
        elif line.kind is LegKind.CAPTURE:
            self._check_taken(line, self.labels[payment_id])
        elif line.kind is LegKind.CREDIT:
            self._check_credit(payment_id, line)
        elif line.kind is LegKind.REFUND:
            self._check_refund(payment_id, number, line)

    def standing(self, payment_id: bytes, kind: LegKind) -> list[Line]:
        """Legs of a payment that are done, by participants that kept their word."""
        lines = (self.participants[leg.participant].lines.get(leg.leg_id) for leg in self.legs_of.get(payment_id, ()))
        return [line for line in lines if line and line.state == DONE and not line.lied and line.kind is kind]

    def _check_debit(self, line: Line, label: str) -> None:
        op, other = int(label.removesuffix("x")), label.endswith("x")
        pay = self.asked[op]
        assert isinstance(pay, Pay), "refunds begin with a refund at the acquirer"
        if line.amount_minor != self.amount_of(op, other):
            self.complain("amounts are those asked for", f"operation {label} debits {line.amount_minor}")
        debits = self._standing_debits()
        if len(debits[op]) > 1:
            self.complain("one effect for one key", f"operation {op} has {len(debits[op])} debits standing")
        if pay.code is not None and sum(bool(debits[o]) for o in debits if self._pay(o).code == pay.code) > 1:
            self.complain("one code has one winner", f"code {pay.code} was debited twice, now for operation {op}")
        if pay.order is not None and len(having := self.having(pay.order)) > 1:
            self.complain("an order is paid once", f"order {pay.order} is paid by operations {having}")
        if pay.counter is not None:
            total = sum(sum(debits[o]) for o in debits if self._pay(o).counter == pay.counter)
            if total > self.plan.caps[pay.counter]:
                self.complain("a limit is never exceeded", f"limit {pay.counter} stands at {total}")

    def _check_taken(self, line: Line, label: str) -> None:
        op, other = int(label.removesuffix("x")), label.endswith("x")
        if line.amount_minor not in {amount or self.amount_of(op, other) for amount in self.captures.get(op, ())}:
            self.complain("amounts are those asked for", f"operation {label} captures {line.amount_minor}")

    def taken(self, payment_id: bytes) -> list[int]:
        """What was debited or captured of a payment and stands, and what is held of it, minor units."""
        lines = [*self.standing(payment_id, LegKind.DEBIT), *self.standing(payment_id, LegKind.CAPTURE)]
        holds = self.standing(payment_id, LegKind.AUTHORISATION)
        held = (self.participants[line.participant].held_minor(line) for line in holds)
        return [*(line.amount_minor for line in lines), *(amount for amount in held if amount)]

    def _standing_debits(self) -> dict[int, list[int]]:
        """Operation to the amounts of its debits that stand, or of what is held."""
        found: dict[int, list[int]] = {}
        for payment_id, label in self.labels.items():
            op = int(label.removesuffix("x"))
            if isinstance(self.asked[op], Pay):
                found.setdefault(op, []).extend(self.taken(payment_id))
        return found

    def _check_credit(self, payment_id: bytes, line: Line) -> None:
        debits = [*self.standing(payment_id, LegKind.DEBIT), *self.standing(payment_id, LegKind.CAPTURE)]
        paid = self.standing(payment_id, LegKind.CREDIT)
        others = [credit for credit in paid if credit.leg_id != line.leg_id]
        if others:
            self.complain(
                "no acquirer pays twice", f"{payment_id.hex()} at {others[0].participant}, {line.participant}"
            )
        if not debits:
            self.complain("no credit without its debit", f"{payment_id.hex()} at {line.participant}")
        elif debits[0].amount_minor != line.amount_minor:
            self.complain("amounts are those asked for", f"{payment_id.hex()} credits {line.amount_minor}")

    def _check_refund(self, payment_id: bytes, number: int, line: Line) -> None:
        participant = self.participants[line.participant]
        original = participant.lines.get(line.original)
        if original is None or original.state != DONE or original.kind is LegKind.AUTHORISATION:
            self.complain(
                "a refund takes back what stands", f"{line.participant} refunds {line.original.hex()}, which does not"
            )
            return
        legs = [leg for leg in participant.lines.values() if leg.contents and leg.kind is LegKind.REFUND]
        standing = [leg for leg in legs if leg.state == DONE and not leg.lied]
        same = [leg.amount_minor for leg in standing if leg.original == line.original]
        if sum(same) > original.amount_minor:
            self.complain(
                "refunds never exceed the payment", f"{line.original.hex()} at {line.participant}: {sum(same)}"
            )
        if number > 1 and not any(leg.leg_id[16] == 1 for leg in self.standing(payment_id, LegKind.REFUND)):
            self.complain("no credit without its debit", f"refund {payment_id.hex()} at {line.participant}")

    # -- what the journal says ---------------------------------------------------------------------------------

    def after_tick(self) -> None:
        """Looks at what was posted and published since the last time."""
        self.claims.look(self.reader)
        self.windows.look()

    def after_restart(self) -> None:
        """Looks whether what was published before is still there."""
        self.claims.look_again(self.reader)
        self.windows.look_again()
