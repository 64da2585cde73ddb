"""The conditions under which payments are admitted: pure rules over facts, the same for every journal.

Conditions are decided in one order: idempotency keys (the journal finds repeats), refunds against what is left of
their originals, values that may be spent once (an order is free again when its payment failed or was refunded in
full), counters that have a cap. Payments take turns in the order of the
batch, so that nobody loses a value or room in a counter to a payment that is itself refused.

The facts come from tables that one engine writes, or from locked rows of a shared database. A journal may admit a batch
faster if all of it fits; its result must equal that of `Decisions`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from gateway.engine.answer import id_text
from gateway.engine.model import Kind, Payment, Refused
from gateway.engine.states import State
from hutong_contract.errors import Reason


class Original(NamedTuple):
    """The facts about the payment that is to be refunded."""

    kind: int
    """A Kind."""
    state: int
    """A State."""
    amount_minor: int
    refunded_minor: int
    """Sum of refunds that succeeded or are in flight, in minor units."""


class Holder(NamedTuple):
    """What the rule about orders asks of the payment that has an order."""

    payment_id: bytes
    state: int
    """A State."""
    amount_minor: int
    given_back_minor: int
    """Sum of refunds that succeeded, in minor units."""


_NOTHING_TAKEN = frozenset({State.DECLINED, State.FAILED, State.CANCELLED, State.EXPIRED})


def order_is_open(holder: Holder) -> bool:
    """Whether an order can be paid again: the payment that has it took nothing and never will, or all of it was given
    back. Neither ever becomes untrue, so it may be read before the payment that takes the order over is written."""
    if holder.state == State.SUCCEEDED:
        return holder.given_back_minor >= holder.amount_minor
    return holder.state in _NOTHING_TAKEN


def spend_refusal(payment: Payment, value: bytes, owner: bytes) -> Refused:
    """The verdict on a payment of which a value is another payment's, `owner`."""
    if value == payment.order:
        return Refused(Reason.ERROR_REASON_ORDER_ALREADY_PAID, fields={"payment_id": id_text(owner)})
    return Refused(payment.spend_reason)


def refund_refusal(
    original: Original | None, original_id: bytes, amount_minor: int, reserved_minor: int = 0
) -> Refused | None:
    """Why a payment cannot be refunded by this amount; None where it can.

    Args:
        original: the payment to refund; None where there is none with this id.
        original_id: its 16 bytes.
        amount_minor: what to refund, in minor units of the payment's currency.
        reserved_minor: what earlier refunds of the same batch take, which `original` does not have yet.
    """
    if original is None:
        return Refused(Reason.ERROR_REASON_PAYMENT_NOT_FOUND, fields={"payment_id": id_text(original_id)})
    if original.kind == Kind.REFUND:
        return Refused(Reason.ERROR_REASON_REFUND_OF_REFUND)
    if original.state != State.SUCCEEDED:
        fields = {"state": State(original.state).name}
        return Refused(Reason.ERROR_REASON_PAYMENT_NOT_REFUNDABLE, fields=fields)
    left = original.amount_minor - original.refunded_minor - reserved_minor
    if not 0 < amount_minor <= left:
        return Refused(Reason.ERROR_REASON_REFUND_EXCEEDS_PAYMENT, fields={"left_minor": str(left)})
    return None


def counter_refusal(payment: Payment, index: int) -> Refused:
    """The verdict on a payment whose condition at this index does not fit its counter. A payer is told about a daily
    limit; other risk rules are named to operators only."""
    condition = payment.counters[index]
    if not condition.limit:
        return Refused(condition.reason)
    fields = {"decision": id_text(payment.payment_id)}
    if condition.reason == Reason.ERROR_REASON_DAILY_LIMIT:
        fields.update(limit=condition.limit, most_minor=str(condition.cap), currency=payment.currency)
    return Refused(condition.reason, fields=fields, limit=condition.limit)


class Decisions:
    """Decides on the payments of one batch, and collects what the admitted ones change."""

    def __init__(self, payments: Sequence[Payment]) -> None:
        self.payments = payments
        self.verdicts: list[Refused | None] = [None] * len(payments)
        """In the order of `payments`: the refusal, or None while nothing has refused it."""
        self.withdrawn: list[bytes] = []
        """Ids of payments that a condition refused; the journal may have written their rows before."""
        self.counted: dict[bytes, int] = {}
        """Counter -> what the admitted payments add to it."""
        self.refunded: dict[bytes, int] = {}
        """Original -> what the admitted refunds take of it, in minor units."""
        self.spent: list[tuple[bytes, bytes]] = []
        """(value, payment id) of what the admitted payments spend."""
        self.reopened: dict[bytes, bytes] = {}
        """Orders that admitted payments take over, to the payment that each was of."""
        self.respend = False
        """Whether a value that this batch had written as spent now belongs to another payment of it."""

    def standing(self) -> Iterator[tuple[int, Payment]]:
        """Payments that nothing has refused yet, with their indexes in the batch."""
        return ((at, one) for at, one in enumerate(self.payments) if self.verdicts[at] is None)

    def admitted(self) -> list[Payment]:
        """The same after everything is decided."""
        return [payment for _, payment in self.standing()]

    def repeats(self, index: int, standing: Payment) -> None:
        """Records that this payment's idempotency key already has a payment: `standing`, as the journal has it."""
        self.verdicts[index] = Refused(0, standing)

    def refunds(self, originals: Mapping[bytes, Original]) -> None:
        """Reserves refunds. `originals`: the payments that refunds name, by id."""
        for index, payment in self.standing():
            original_id = payment.original_id
            if original_id is None:
                continue
            reserved = self.refunded.get(original_id, 0)
            refusal = refund_refusal(originals.get(original_id), original_id, payment.amount_minor, reserved)
            if refusal is None:
                self.refunded[original_id] = reserved + payment.amount_minor
            else:
                self._withdraw(index, refusal)

    def take_turns(
        self, owners: Mapping[bytes, bytes], used: Mapping[bytes, int], holders: Mapping[bytes, Holder] | None = None
    ) -> None:
        """Spends values and adds to counters, payment by payment.

        Args:
            owners: value to the payment that spent it, as the journal has it; what this batch wrote counts as free.
            used: counter to its count, as the journal has it; 0 where there is none.
            holders: order to the payment that has it, where the journal knows one.
        """
        ours = {payment.payment_id for _, payment in self.standing()}
        spent = {value: owner for value, owner in owners.items() if owner not in ours}
        free: dict[bytes, bytes] = {}
        for order, holder in (holders or {}).items():
            if spent.get(order) == holder.payment_id and order_is_open(holder):
                free[order] = spent.pop(order)
        for index, payment in self.standing():
            values = payment.single_use
            taken = next((value for value in values if value in spent), None)
            if taken is not None:
                self._refuse(index, payment, spend_refusal(payment, taken, spent[taken]))
            elif (full := self._count(payment, used)) is not None:
                self._refuse(index, payment, counter_refusal(payment, full))
            else:
                spent.update(dict.fromkeys(values, payment.payment_id))
                self.spent.extend((value, payment.payment_id) for value in values)
                if payment.order in free:
                    self.reopened[payment.order] = free[payment.order]
        self.respend = any(owners.get(value) != payment_id for value, payment_id in self.spent)

    def _count(self, payment: Payment, used: Mapping[bytes, int]) -> int | None:
        """Adds to all of a payment's counters, or to none. Returns the index of the first without room, or None."""
        for done, condition in enumerate(payment.counters):
            counter, add = condition.counter, condition.add
            if used.get(counter, 0) + self.counted.get(counter, 0) + add > condition.cap:
                for earlier in payment.counters[:done]:
                    self.counted[earlier.counter] -= earlier.add
                return done
            self.counted[counter] = self.counted.get(counter, 0) + add
        return None

    def _refuse(self, index: int, payment: Payment, refusal: Refused) -> None:
        if payment.original_id is not None:
            self.refunded[payment.original_id] -= payment.amount_minor
        self._withdraw(index, refusal)

    def _withdraw(self, index: int, refusal: Refused) -> None:
        self.verdicts[index] = refusal
        self.withdrawn.append(self.payments[index].payment_id)
