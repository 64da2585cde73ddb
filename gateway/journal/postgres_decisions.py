"""Verdicts on a tick's admissions, from rows that are locked: pure, and the same as SQLite's, row by row."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.engine.model import Kind, Payment, Refused
from gateway.engine.states import State
from gateway.journal.refusals import counter_refusal
from hutong_contract.errors import Reason


class Decisions:
    """The conditions of one tick's admissions, decided in the order of the batch from rows that are locked."""

    def __init__(self, payments: Sequence[Payment]) -> None:
        self.payments = payments
        self.verdicts: list[Refused | None] = [None] * len(payments)
        self.withdrawn: list[bytes] = []
        self.counted: dict[bytes, int] = {}
        self.refunded: dict[bytes, int] = {}
        self.spent: list[tuple[bytes, bytes]] = []
        """(value, payment id) of what was spent."""
        self.respend = False
        """Whether the database has other payments of this tick as owners of what was spent."""

    def standing(self) -> list[tuple[int, Payment]]:
        """Admissions that no condition has refused yet."""
        return [(index, one) for index, one in enumerate(self.payments) if self.verdicts[index] is None]

    def withdraw(self, index: int, refusal: Refused) -> None:
        """Refuses a payment whose row is there already."""
        self.verdicts[index] = refusal
        self.withdrawn.append(self.payments[index].payment_id)

    def refunds(self, originals: dict[bytes, tuple[int, int, int, int]]) -> None:
        """Reserves refunds against (kind, state, amount, refunded) of their originals."""
        for index, payment in self.standing():
            original_id = payment.original_id
            if original_id is None:
                continue
            refusal = _refund_refusal(originals.get(original_id), self.refunded.get(original_id, 0), payment)
            if refusal is None:
                self.refunded[original_id] = self.refunded.get(original_id, 0) + payment.amount_minor
            else:
                self.withdraw(index, refusal)

    def take_turns(self, owners: dict[bytes, bytes], used: dict[bytes, int]) -> None:
        """Spends values and adds to counters, payment by payment: nobody loses a value to a payment that is itself
        refused. `owners`: which payment's each value is in the database, where those that this tick wrote count as
        free; `used`: the counters as they stand."""
        ours = {payment.payment_id for _, payment in self.standing()}
        spent = {value for value, owner in owners.items() if owner not in ours}
        for index, payment in self.standing():
            if any(value in spent for value in payment.spends):
                self._refuse(index, payment, Refused(payment.spend_reason))
            elif (full := self._count(payment, used)) is not None:
                self._refuse(index, payment, counter_refusal(payment, full))
            else:
                spent.update(payment.spends)
                self.spent.extend((value, payment.payment_id) for value in payment.spends)
        self.respend = any(owners.get(value) != payment_id for value, payment_id in self.spent)

    def _count(self, payment: Payment, used: dict[bytes, int]) -> int | None:
        """Adds to all of a payment's counters, or to none; the index of the first that has no room."""
        for done, (counter, add, cap, _) in enumerate(payment.counters):
            if used.get(counter, 0) + self.counted.get(counter, 0) + add > cap:
                for earlier, added, _, _ in payment.counters[:done]:
                    self.counted[earlier] -= added
                return done
            self.counted[counter] = self.counted.get(counter, 0) + add
        return None

    def _refuse(self, index: int, payment: Payment, refusal: Refused) -> None:
        self._give_back_refund(payment)
        self.withdraw(index, refusal)

    def _give_back_refund(self, payment: Payment) -> None:
        if payment.original_id is not None:
            self.refunded[payment.original_id] -= payment.amount_minor


def _refund_refusal(row: tuple[int, int, int, int] | None, reserved: int, refund: Payment) -> Refused | None:
    if row is None:
        return Refused(Reason.ERROR_REASON_PAYMENT_NOT_FOUND)
    kind, state, amount, refunded = row
    if kind == Kind.REFUND:
        return Refused(Reason.ERROR_REASON_REFUND_OF_REFUND)
    if state != State.SUCCEEDED:
        return Refused(Reason.ERROR_REASON_PAYMENT_NOT_REFUNDABLE, fields={"state": State(state).name})
    left = amount - refunded - reserved
    if refund.amount_minor > left:
        return Refused(Reason.ERROR_REASON_REFUND_EXCEEDS_PAYMENT, fields={"left_minor": str(left)})
    return None
