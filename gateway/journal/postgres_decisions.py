"""Verdicts on a tick's admissions, from rows that are locked: pure, and the same as SQLite's, row by row."""

from __future__ import annotations

from collections.abc import Sequence

from contract.errors import Reason
from gateway.engine.model import Kind, Payment, Refused
from gateway.engine.states import State


class Decisions:
    """The conditions of one tick's admissions, decided in the order of the batch from rows that are locked."""

    def __init__(self, payments: Sequence[Payment]) -> None:
        self.payments = payments
        self.verdicts: list[Refused | None] = [None] * len(payments)
        self.withdrawn: list[bytes] = []
        self.counted: dict[bytes, int] = {}
        self.refunded: dict[bytes, int] = {}

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

    def spends(self, owners: dict[bytes, bytes]) -> None:
        """Refuses payments that do not own every value that they spend."""
        for index, payment in self.standing():
            if any(owners.get(spend) != payment.payment_id for spend in payment.spends):
                self._give_back_refund(payment)
                self.withdraw(index, Refused(payment.spend_reason))

    def counters(self, used: dict[bytes, int]) -> None:
        """Adds to counters that have room, all of a payment's or none."""
        for index, payment in self.standing():
            for done, (counter, add, cap, reason) in enumerate(payment.counters):
                if used.get(counter, 0) + self.counted.get(counter, 0) + add > cap:
                    for earlier, added, _, _ in payment.counters[:done]:
                        self.counted[earlier] -= added
                    self._give_back_refund(payment)
                    self.withdraw(index, Refused(reason))
                    break
                self.counted[counter] = self.counted.get(counter, 0) + add

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
