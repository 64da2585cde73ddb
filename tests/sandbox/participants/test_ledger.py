"""Proves the semantics of legs at a participant: each rule of participant.proto, alone and against a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hutong.participant.v1 import participant_pb2 as pb
from sandbox.participants import ledger as ledger_module
from sandbox.participants.books import Books, holds, totals
from sandbox.participants.ledger import Ledger, Role

TOKEN, MERCHANT = "6210000000000001", "m1001"
OPENING = 1_000
APPROVED, DECLINED = pb.ANSWER_RESULT_APPROVED, pb.ANSWER_RESULT_DECLINED


def leg_id(payment: int, number: int) -> bytes:
    return payment.to_bytes(16, "big") + bytes([number])


def leg(kind: int, id_: bytes, amount: int = 100, original: bytes = b"", **fields: str) -> pb.Leg:
    fields = {"currency": "CNY"} | fields
    return pb.Leg(leg_id=id_, kind=kind, amount_minor=amount, original_leg_id=original, **fields)  # type: ignore[arg-type]


def debit(id_: bytes, amount: int = 100, account: str = TOKEN) -> pb.Leg:
    return leg(pb.LEG_KIND_DEBIT, id_, amount, account=account)


def credit(id_: bytes, amount: int = 100, account: str = MERCHANT) -> pb.Leg:
    return leg(pb.LEG_KIND_CREDIT, id_, amount, account=account, terminal_id="t1")


def authorisation(id_: bytes, amount: int = 100, account: str = TOKEN) -> pb.Leg:
    return leg(pb.LEG_KIND_AUTHORISATION, id_, amount, account=account)


def capture(id_: bytes, original: bytes, amount: int = 100) -> pb.Leg:
    return leg(pb.LEG_KIND_CAPTURE, id_, amount, original)


def refund(id_: bytes, original: bytes, amount: int) -> pb.Leg:
    return leg(pb.LEG_KIND_REFUND, id_, amount, original)


def reversal(id_: bytes, original: bytes) -> pb.Leg:
    return leg(pb.LEG_KIND_REVERSAL, id_, 100, original)


def inquiry(original: bytes) -> pb.Leg:
    return leg(pb.LEG_KIND_INQUIRY, original[:16] + b"\xff", 0, original)


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    books = Books(tmp_path)
    yield books
    books.close()


def open_ledger(books: Books, role: Role) -> Ledger:
    ledger = Ledger("issuer-a" if role is Role.ISSUER else "acquirer-a", role, books)
    ledger.open_accounts([(TOKEN, "CNY", OPENING)] if role is Role.ISSUER else [(MERCHANT, "CNY", 0)])
    return ledger


@pytest.fixture
def issuer(books: Books) -> Ledger:
    return open_ledger(books, Role.ISSUER)


@pytest.fixture
def acquirer(books: Books) -> Ledger:
    return open_ledger(books, Role.ACQUIRER)


def test_a_debit_takes_and_a_credit_gives(issuer: Ledger, acquirer: Ledger) -> None:
    assert issuer.apply(debit(leg_id(1, 1)), 1) == (APPROVED, "00")
    assert acquirer.apply(credit(leg_id(1, 2)), 1) == (APPROVED, "00")
    assert issuer.balance_minor(TOKEN, "CNY") == OPENING - 100
    assert acquirer.balance_minor(MERCHANT, "CNY") == 100


def test_the_same_leg_again_has_one_effect_and_the_same_answer(issuer: Ledger) -> None:
    for _ in range(3):
        assert issuer.apply(debit(leg_id(1, 1)), 1) == (APPROVED, "00")
    assert issuer.balance_minor(TOKEN, "CNY") == OPENING - 100


@pytest.mark.parametrize(
    "other",
    [
        debit(leg_id(1, 1), 101),
        debit(leg_id(1, 1), account="6210000000000009"),
        leg(pb.LEG_KIND_DEBIT, leg_id(1, 1), account=TOKEN, currency="USD"),
        leg(pb.LEG_KIND_DEBIT, leg_id(1, 1), account=TOKEN, terminal_id="t9"),
        refund(leg_id(1, 1), leg_id(7, 1), 100),
    ],
    ids=["amount", "account", "currency", "terminal", "kind"],
)
def test_the_same_leg_with_other_contents_is_refused(issuer: Ledger, other: pb.Leg) -> None:
    issuer.apply(debit(leg_id(1, 1)), 1)
    assert issuer.apply(other, 2) == (DECLINED, "94")
    assert issuer.apply(debit(leg_id(1, 1)), 3) == (APPROVED, "00")
    assert issuer.balance_minor(TOKEN, "CNY") == OPENING - 100


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (debit(leg_id(1, 1), OPENING + 1), "51"),
        (debit(leg_id(1, 1), account="6210000000000009"), "14"),
        (leg(pb.LEG_KIND_DEBIT, leg_id(1, 1), account=TOKEN, currency="USD"), "14"),
        (debit(leg_id(1, 1), 0), "13"),
        (debit(leg_id(1, 1), -5), "13"),
        (credit(leg_id(1, 1), account=TOKEN), "12"),
        (leg(pb.LEG_KIND_UNSPECIFIED, leg_id(1, 1)), "12"),
        (debit(b"short"), "30"),
        (refund(leg_id(1, 1), leg_id(9, 1), 5), "25"),
        (refund(leg_id(1, 1), b"short", 5), "30"),
        (reversal(leg_id(1, 1), b""), "30"),
    ],
)
def test_what_cannot_be_done_is_declined_without_effect(issuer: Ledger, bad: pb.Leg, code: str) -> None:
    assert issuer.apply(bad, 1) == (DECLINED, code)
    assert issuer.balance_minor(TOKEN, "CNY") == OPENING


def test_a_declined_leg_stays_declined_when_money_has_come(issuer: Ledger) -> None:
    issuer.apply(debit(leg_id(1, 1), 900), 1)
    assert issuer.apply(debit(leg_id(2, 1), 200), 1) == (DECLINED, "51")
    issuer.apply(reversal(leg_id(1, 2), leg_id(1, 1)), 2)
    assert issuer.apply(debit(leg_id(2, 1), 200), 3) == (DECLINED, "51")


def test_a_reversal_undoes_once_however_often_it_comes(issuer: Ledger) -> None:
    issuer.apply(debit(leg_id(1, 1)), 1)
    for number in (2, 2, 3):
        assert issuer.apply(reversal(leg_id(1, number), leg_id(1, 1)), 2) == (APPROVED, "00")
    assert issuer.balance_minor(TOKEN, "CNY") == OPENING


def test_a_reversal_before_its_original_bars_it(acquirer: Ledger) -> None:
    assert acquirer.apply(reversal(leg_id(1, 3), leg_id(1, 2)), 1) == (APPROVED, "00")
    assert acquirer.apply(inquiry(leg_id(1, 2)), 1)[0] == pb.ANSWER_RESULT_REVERSED
    assert acquirer.apply(credit(leg_id(1, 2)), 2) == (DECLINED, "57")
    assert acquirer.apply(credit(leg_id(1, 2)), 3) == (DECLINED, "57")
    assert acquirer.apply(inquiry(leg_id(1, 2)), 3)[0] == pb.ANSWER_RESULT_REVERSED
    assert acquirer.apply(reversal(leg_id(1, 3), leg_id(1, 2)), 4) == (APPROVED, "00")
    assert acquirer.balance_minor(MERCHANT, "CNY") == 0


def test_a_reversal_is_not_itself_reversed(issuer: Ledger) -> None:
    issuer.apply(debit(leg_id(1, 1)), 1)
    issuer.apply(reversal(leg_id(1, 2), leg_id(1, 1)), 2)
    assert issuer.apply(reversal(leg_id(1, 3), leg_id(1, 2)), 3) == (DECLINED, "12")
    assert issuer.balance_minor(TOKEN, "CNY") == OPENING


def test_an_inquiry_says_what_became_of_the_original_and_changes_nothing(issuer: Ledger) -> None:
    assert issuer.apply(inquiry(leg_id(1, 1)), 1) == (pb.ANSWER_RESULT_NOT_FOUND, "25")
    assert issuer.apply(debit(leg_id(1, 1)), 1) == (APPROVED, "00")
    assert issuer.apply(inquiry(leg_id(1, 1)), 1) == (APPROVED, "00")
    issuer.apply(debit(leg_id(2, 1), OPENING), 1)
    assert issuer.apply(inquiry(leg_id(2, 1)), 1) == (DECLINED, "51")
    issuer.apply(reversal(leg_id(1, 2), leg_id(1, 1)), 2)
    assert issuer.apply(inquiry(leg_id(1, 1)), 3)[0] == pb.ANSWER_RESULT_REVERSED


@pytest.mark.parametrize("role", list(Role))
def test_refunds_never_exceed_the_original(books: Books, role: Role) -> None:
    ledger = open_ledger(books, role)
    account = TOKEN if role is Role.ISSUER else MERCHANT
    start = ledger.balance_minor(account, "CNY") or 0
    ledger.apply(debit(leg_id(1, 1)) if role is Role.ISSUER else credit(leg_id(1, 1)), 1)
    assert ledger.apply(refund(leg_id(2, 1), leg_id(1, 1), 60), 2) == (APPROVED, "00")
    assert ledger.apply(refund(leg_id(3, 1), leg_id(1, 1), 41), 2) == (DECLINED, "13")
    assert ledger.apply(refund(leg_id(4, 1), leg_id(1, 1), 40), 2) == (APPROVED, "00")
    assert ledger.apply(refund(leg_id(5, 1), leg_id(1, 1), 1), 2) == (DECLINED, "13")
    assert ledger.balance_minor(account, "CNY") == start
    # A refund that is undone can be given again.
    assert ledger.apply(reversal(leg_id(4, 2), leg_id(4, 1)), 3) == (APPROVED, "00")
    assert ledger.apply(refund(leg_id(6, 1), leg_id(1, 1), 40), 3) == (APPROVED, "00")
    assert ledger.balance_minor(account, "CNY") == start


def test_what_was_reversed_or_declined_is_not_refunded(issuer: Ledger) -> None:
    issuer.apply(debit(leg_id(1, 1)), 1)
    issuer.apply(reversal(leg_id(1, 2), leg_id(1, 1)), 1)
    issuer.apply(debit(leg_id(2, 1), OPENING * 2), 1)
    assert issuer.apply(refund(leg_id(3, 1), leg_id(1, 1), 10), 2)[0] == DECLINED
    assert issuer.apply(refund(leg_id(4, 1), leg_id(2, 1), 10), 2)[0] == DECLINED
    assert issuer.balance_minor(TOKEN, "CNY") == OPENING


def test_a_reversal_after_a_partial_refund_gives_back_the_rest_only(issuer: Ledger) -> None:
    issuer.apply(debit(leg_id(1, 1)), 1)
    issuer.apply(refund(leg_id(2, 1), leg_id(1, 1), 30), 1)
    issuer.apply(reversal(leg_id(1, 2), leg_id(1, 1)), 1)
    assert issuer.balance_minor(TOKEN, "CNY") == OPENING


def test_a_hold_is_captured_in_part_and_reversed_as_a_whole(issuer: Ledger) -> None:
    hold, taken = leg_id(1, 1), leg_id(1, 2)
    assert issuer.apply(authorisation(hold, 600), 1) == (APPROVED, "00")
    assert issuer.apply(debit(leg_id(2, 1), 500), 1) == (DECLINED, "51")
    assert issuer.apply(capture(taken, hold, 601), 1) == (DECLINED, "13")
    assert issuer.apply(capture(leg_id(1, 3), hold, 250), 1) == (APPROVED, "00")
    assert issuer.balance_minor(TOKEN, "CNY") == OPENING - 250
    assert issuer.apply(capture(leg_id(1, 4), hold, 100), 1) == (DECLINED, "12")
    assert issuer.apply(refund(leg_id(3, 2), hold, 100), 1) == (DECLINED, "25")
    assert issuer.apply(refund(leg_id(4, 2), leg_id(1, 3), 100), 1) == (APPROVED, "00")
    assert issuer.apply(reversal(leg_id(1, 5), hold), 1) == (APPROVED, "00")
    assert issuer.balance_minor(TOKEN, "CNY") == OPENING
    assert issuer.apply(inquiry(leg_id(1, 3)), 1) == (pb.ANSWER_RESULT_REVERSED, "00")


def test_a_capture_that_comes_after_the_reversal_of_its_hold_takes_nothing(issuer: Ledger) -> None:
    issuer.apply(authorisation(leg_id(1, 1), 600), 1)
    issuer.apply(reversal(leg_id(1, 3), leg_id(1, 1)), 1)
    assert issuer.apply(capture(leg_id(1, 2), leg_id(1, 1), 600), 1) == (DECLINED, "12")
    assert issuer.balance_minor(TOKEN, "CNY") == OPENING


def test_an_acquirer_holds_nothing(acquirer: Ledger) -> None:
    assert acquirer.apply(authorisation(leg_id(1, 1), account=MERCHANT), 1) == (DECLINED, "12")
    assert acquirer.apply(capture(leg_id(1, 2), leg_id(1, 1)), 1) == (DECLINED, "12")


class Model:
    """The same semantics in the plainest form: everything in dictionaries, looked at afresh each time."""

    def __init__(self, role: Role, opening: int) -> None:
        self.kind = role.original_kind
        self.sign = role.sign
        self.opening = opening
        self.done: dict[bytes, tuple[bytes, int, int, str]] = {}  # contents, effect, result, code
        self.held: dict[bytes, int] = {}
        self.kinds: dict[bytes, tuple[int, bytes, int]] = {}

    def balance(self) -> int:
        """What can be spent."""
        return self.opening + sum(effect for _, effect, _, _ in self.done.values()) - sum(self.held.values())

    def captured(self, id_: bytes) -> bytes | None:
        """The capture of an authorisation."""
        return next(
            (
                key
                for key, (kind, original, _) in self.kinds.items()
                if kind == pb.LEG_KIND_CAPTURE and original == id_ and self.done[key][2] == APPROVED
            ),
            None,
        )

    def reversed(self, id_: bytes) -> bool:
        kind, original, _ = self.kinds.get(id_, (0, b"", 0))
        if kind == pb.LEG_KIND_CAPTURE and self.done[id_][2] == APPROVED and self.reversed(original):
            return True
        return any(
            kind == pb.LEG_KIND_REVERSAL and original == id_ and self.done[key][2] == APPROVED
            for key, (kind, original, _) in self.kinds.items()
        )

    def refunded(self, id_: bytes) -> int:
        return sum(
            amount
            for key, (kind, original, amount) in self.kinds.items()
            if kind == pb.LEG_KIND_REFUND
            and original == id_
            and self.done[key][2] == APPROVED
            and not self.reversed(key)
        )

    def apply(self, one: pb.Leg) -> tuple[int, str]:
        contents = one.SerializeToString(deterministic=True)
        if one.kind == pb.LEG_KIND_INQUIRY:
            return self.inquire(one.original_leg_id)
        if one.leg_id in self.done:
            first, _, result, code = self.done[one.leg_id]
            return (result, code) if first == contents else (DECLINED, "94")
        effect, result, code = self.decide(one)
        self.done[one.leg_id] = (contents, effect, result, code)
        self.kinds[one.leg_id] = (one.kind, one.original_leg_id, one.amount_minor)
        return result, code

    def decide(self, one: pb.Leg) -> tuple[int, int, str]:
        original = one.original_leg_id
        if self.reversed(one.leg_id):
            return 0, DECLINED, "57"
        if one.kind == self.kind:
            if self.sign < 0 and self.balance() < one.amount_minor:
                return 0, DECLINED, "51"
            return self.sign * one.amount_minor, APPROVED, "00"
        if one.kind == pb.LEG_KIND_AUTHORISATION:
            if self.balance() < one.amount_minor:
                return 0, DECLINED, "51"
            self.held[one.leg_id] = one.amount_minor
            return 0, APPROVED, "00"
        kind, _, amount = self.kinds.get(original, (0, b"", 0))
        if one.kind == pb.LEG_KIND_CAPTURE:
            return self.capture(one, kind, amount)
        if one.kind == pb.LEG_KIND_REVERSAL and kind == pb.LEG_KIND_AUTHORISATION:
            return self.release(original), APPROVED, "00"
        effect = self.done[original][1] if original in self.done else 0
        if one.kind == pb.LEG_KIND_REVERSAL:
            if kind == pb.LEG_KIND_REVERSAL:
                return 0, DECLINED, "12"
            if self.reversed(original) or not effect:
                return 0, APPROVED, "00"
            return -effect + self.sign * self.refunded(original), APPROVED, "00"
        if kind not in (self.kind, pb.LEG_KIND_CAPTURE) or not effect:
            return 0, DECLINED, "25"
        if self.reversed(original):
            return 0, DECLINED, "12"
        if self.refunded(original) + one.amount_minor > amount:
            return 0, DECLINED, "13"
        return -self.sign * one.amount_minor, APPROVED, "00"

    def capture(self, one: pb.Leg, kind: int, amount: int) -> tuple[int, int, str]:
        hold = one.original_leg_id
        if kind != pb.LEG_KIND_AUTHORISATION or self.done[hold][2] != APPROVED:
            return 0, DECLINED, "25"
        if self.reversed(hold) or self.captured(hold):
            return 0, DECLINED, "12"
        if one.amount_minor > amount:
            return 0, DECLINED, "13"
        del self.held[hold]
        return -one.amount_minor, APPROVED, "00"

    def release(self, hold: bytes) -> int:
        self.held.pop(hold, None)
        capture = self.captured(hold)
        if capture is None or self.reversed(capture):
            return 0
        return -self.done[capture][1] + self.sign * self.refunded(capture)

    def inquire(self, original: bytes) -> tuple[int, str]:
        if self.reversed(original):
            return pb.ANSWER_RESULT_REVERSED, "00"
        if original not in self.done:
            return pb.ANSWER_RESULT_NOT_FOUND, "25"
        return self.done[original][2:]


IDS = st.builds(leg_id, st.integers(1, 3), st.integers(1, 3))


def legs(role: Role) -> st.SearchStrategy[pb.Leg]:
    build = debit if role is Role.ISSUER else credit
    holds = [
        st.builds(authorisation, IDS, st.sampled_from([100, 400])),
        st.builds(capture, IDS, IDS, st.sampled_from([40, 100, 400])),
    ]
    return st.one_of(
        *(holds if role is Role.ISSUER else ()),
        st.builds(build, IDS, st.sampled_from([100, 400])),
        st.builds(refund, IDS, IDS, st.sampled_from([40, 100])),
        st.builds(reversal, IDS, IDS),
        st.builds(inquiry, IDS),
    )


@pytest.mark.parametrize("role", list(Role))
def test_any_sequence_agrees_with_the_model_across_commits_restarts_and_forgetting(
    role: Role, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "GENERATION_LEGS", 2)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(legs(role), st.sampled_from(["", "", "commit", "commit", "restart"])), max_size=30))
    def run(steps: list[tuple[pb.Leg, str]]) -> None:
        folder = tmp_path_factory.mktemp("books")
        books = Books(folder)
        ledger = open_ledger(books, role)
        account = TOKEN if role is Role.ISSUER else MERCHANT
        model = Model(role, OPENING if role is Role.ISSUER else 0)
        for now, (one, then) in enumerate(steps):
            if one.kind != pb.LEG_KIND_INQUIRY and one.leg_id == one.original_leg_id:
                continue
            assert ledger.apply(one, now) == model.apply(one)
            assert ledger.balance_minor(account, "CNY") == model.balance()
            if then:
                books.commit()
                ledger.committed()
            if then == "restart":
                books.close()
                books = Books(folder)
                ledger = Ledger(ledger.participant, role, books)
        books.commit()
        books.close()
        held = sum(holds(folder / "books.db").values())
        assert held == sum(model.held.values())
        assert sum(totals(folder / "books.db").values()) - held == model.balance() - model.opening

    run()
