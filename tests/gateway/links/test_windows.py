"""Windows: what gives a place back, who goes first, and that no answer and no stream can make the account wrong."""

from __future__ import annotations

import random
from itertools import count

import pytest

from gateway.engine.model import INQUIRY_NUMBER_MIN, NOT_SENT, Answered, LegKind, LegOut
from gateway.links.windows import PLACE_US, WINDOW, WINDOW_MIN, Windows, bounds

NOW = 1_790_000_000_000_000
BANK = "issuer-a"
KINDS = (LegKind.DEBIT, LegKind.CREDIT, LegKind.REFUND, LegKind.AUTHORISATION, LegKind.CAPTURE)


def leg(payment: int, number: int = 1, kind: LegKind = LegKind.DEBIT, about: int = 0) -> LegOut:
    payment_id = payment.to_bytes(16, "big")
    original = payment_id + bytes([about]) if about else b""
    return LegOut(BANK, payment_id + bytes([number]), kind, original, 100, "CNY", "", "")


def reversal(payment: int, about: int = 1) -> LegOut:
    return leg(payment, about + 1, LegKind.REVERSAL, about)


def inquiry(payment: int, about: int = 1) -> LegOut:
    return leg(payment, INQUIRY_NUMBER_MIN + about, LegKind.INQUIRY, about)


def connected(windows: Windows) -> int:
    """The epoch of a stream that opens, or takes over."""
    epoch = windows.connect(BANK, "its installation")
    assert epoch is not None
    return epoch


class Bank:
    """A connected participant behind a window."""

    def __init__(self, window: int = 16, frame_legs_max: int = 1000) -> None:
        self.windows = Windows(window, frame_legs_max=frame_legs_max)
        self.epoch = connected(self.windows)
        self.now = NOW

    def offer(self, *legs: LegOut) -> list[bytes]:
        """Leg ids that are certain not to leave."""
        lost, _ = self.windows.offer(legs, self.now)
        assert all(answer.result == NOT_SENT for answer in lost)
        return [answer.leg_id for answer in lost]

    def take(self) -> list[LegOut]:
        taken = self.windows.take(BANK, self.epoch)
        assert taken is not None
        return taken

    def answer(self, *legs: LegOut, epoch: int | None = None) -> None:
        self.windows.answered(BANK, epoch or self.epoch, [one.leg_id for one in legs])

    @property
    def taken(self) -> int:
        return self.windows.taken(BANK)


def test_the_shares_of_a_window() -> None:
    assert bounds(16) == (16, 14, 4, 12)
    assert bounds(WINDOW_MIN) == (4, 3, 2, 2)
    assert bounds(WINDOW).money > 8192, "more than a gateway has in flight by default"
    with pytest.raises(ValueError, match="at least 4"):
        Windows(WINDOW_MIN - 1)


def test_an_answer_gives_the_place_back() -> None:
    bank = Bank()
    debits = [leg(payment) for payment in range(12)]
    assert bank.offer(*debits) == []
    assert bank.offer(leg(99)) == [leg(99).leg_id], "legs that move money have twelve of sixteen places"
    assert bank.take() == debits
    bank.answer(debits[3])
    assert bank.offer(leg(99)) == []
    assert bank.take() == [leg(99)]


@pytest.mark.parametrize("asks", [inquiry, reversal])
def test_the_answer_to_a_question_about_a_lost_leg_gives_both_places_back(asks: object) -> None:
    bank = Bank()
    for payment in range(1000):
        assert bank.offer(leg(payment)) == []
        bank.take()
        question = inquiry(payment) if asks is inquiry else reversal(payment)
        assert bank.offer(question) == []
        assert bank.take() == [question]
        bank.answer(question)
        assert bank.taken == 0


def test_a_reversal_that_is_answered_ends_the_inquiry_that_was_not() -> None:
    bank = Bank()
    for asked in (leg(1), inquiry(1), reversal(1)):
        bank.offer(asked)
        bank.take()
    bank.answer(reversal(1))
    assert bank.taken == 0


def test_what_nobody_answers_is_given_up_in_time_whichever_way_the_clock_leaps() -> None:
    for leap_us in (PLACE_US, -PLACE_US):
        bank = Bank()
        bank.offer(*[leg(payment) for payment in range(12)])
        bank.take()
        bank.now += leap_us - (1 if leap_us > 0 else -1)
        assert bank.offer(leg(99)) == [leg(99).leg_id]
        bank.now = NOW + leap_us
        assert bank.offer(leg(99)) == []
        assert bank.taken == 1


def test_what_never_left_and_is_given_up_is_known_not_to_have_left() -> None:
    bank = Bank()
    bank.offer(leg(1))
    bank.take()
    bank.offer(leg(2))
    assert bank.windows.expire(NOW + PLACE_US - 1) == []
    assert bank.windows.expire(NOW + PLACE_US) == [Answered(BANK, leg(2).leg_id, NOT_SENT, "")]
    assert bank.take() == []
    assert bank.taken == 0


def test_reversals_leave_before_inquiries_and_these_before_all_others() -> None:
    bank = Bank(frame_legs_max=2)
    bank.offer(leg(1), leg(2), leg(3), inquiry(10), reversal(11), reversal(12))
    assert bank.take() == [reversal(11), reversal(12)]
    bank.offer(reversal(13))
    assert bank.take() == [reversal(13), inquiry(10)]
    assert bank.take() == [leg(1), leg(2)]
    assert bank.take() == [leg(3)]
    assert bank.take() == []


def test_a_window_full_of_lost_legs_has_places_for_reversals() -> None:
    bank = Bank()
    bank.offer(*[leg(payment) for payment in range(12)], *[inquiry(payment) for payment in range(100, 104)])
    bank.take()
    assert bank.offer(leg(99), inquiry(99)) == [leg(99).leg_id, inquiry(99).leg_id]
    assert bank.offer(reversal(50), reversal(51)) == []
    assert bank.offer(reversal(52)) == [reversal(52).leg_id], "that is all of the window"
    assert bank.take() == [reversal(50), reversal(51)]


def test_inquiries_are_bounded_and_find_places_beside_legs_that_move_money() -> None:
    bank = Bank()
    asked = [inquiry(payment) for payment in range(1000)]
    assert len(bank.offer(*asked)) == 996
    busy = Bank()
    busy.offer(*[leg(payment) for payment in range(12)])
    busy.take()
    assert len(busy.offer(*asked)) == 998


def test_a_leg_sent_again_keeps_its_one_place() -> None:
    bank = Bank()
    for _ in range(100):
        assert bank.offer(reversal(1)) == []
    assert bank.take() == [reversal(1)], "copies that did not leave yet are one"
    bank.now += PLACE_US - 1
    assert bank.offer(reversal(1)) == []
    assert bank.take() == [reversal(1)], "it leaves again"
    assert bank.taken == 1
    bank.now += PLACE_US - 1
    assert bank.windows.expire(bank.now) == []
    assert bank.taken == 1, "its time is counted from the last copy"
    bank.answer(reversal(1))
    assert bank.taken == 0


def test_an_answer_to_a_copy_that_waits_spares_it() -> None:
    bank = Bank()
    bank.offer(reversal(1))
    bank.take()
    bank.offer(reversal(1))
    bank.answer(reversal(1))
    assert bank.take() == []
    assert bank.taken == 0


@pytest.mark.parametrize("asks", [inquiry, reversal])
def test_a_leg_that_waits_when_it_is_asked_about_does_not_leave(asks: object) -> None:
    """The stream does not move: the engine hears for certain that the leg was not sent."""
    bank = Bank()
    bank.offer(leg(1), leg(2))
    if asks is inquiry:
        assert bank.offer(inquiry(1)) == [leg(1).leg_id, inquiry(1).leg_id]
        assert bank.take() == [leg(2)]
    else:
        assert bank.offer(reversal(1)) == [leg(1).leg_id]
        assert bank.take() == [reversal(1), leg(2)], "a reversal is answered for whatever happened"


def test_answers_that_nobody_waits_for_change_nothing() -> None:
    bank = Bank()
    bank.offer(leg(1), leg(2))
    bank.answer(leg(1))
    assert bank.taken == 2, "a leg that did not leave cannot have been answered"
    bank.take()
    bank.answer(leg(1), leg(1), leg(7), inquiry(2), reversal(2))
    bank.windows.answered(BANK, bank.epoch, [b"", b"short", bytes(400)])
    bank.windows.answered("stranger", bank.epoch, [leg(2).leg_id])
    assert bank.taken == 1


def test_another_stream_takes_over_with_what_waits() -> None:
    bank = Bank()
    bank.offer(leg(1))
    bank.take()
    bank.offer(leg(2))
    first = bank.epoch
    bank.epoch = connected(bank.windows)
    assert bank.taken == 1, "the old stream's leg is not expected on the new one"
    assert bank.windows.take(BANK, first) is None
    assert bank.take() == [leg(2)]
    bank.answer(leg(2), epoch=first)
    assert bank.taken == 1, "what a stream says that no longer counts gives no place back"
    assert bank.windows.disconnect(BANK, first) == []
    assert bank.windows.connected(BANK), "the old stream's end is not the new one's"
    bank.answer(leg(2))
    assert bank.taken == 0


def test_a_stream_that_ends_returns_what_it_never_took() -> None:
    bank = Bank()
    bank.offer(leg(1))
    bank.take()
    bank.offer(leg(2), reversal(1))
    lost = bank.windows.disconnect(BANK, bank.epoch)
    assert {answer.leg_id for answer in lost} == {leg(2).leg_id, reversal(1).leg_id}
    assert not bank.windows.connected(BANK)
    assert bank.offer(leg(3)) == [leg(3).leg_id]
    assert bank.windows.take(BANK, bank.epoch) is None


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_the_account_holds(seed: int) -> None:
    """Places are never more than the window nor fewer than none, and are all free once all is answered."""
    rng = random.Random(seed)
    size = rng.choice((4, 5, 8, 16))
    bank, most, payments = Bank(size, rng.choice((1, 3, 1000))), bounds(size), count()
    sent: dict[bytes, LegOut] = {}
    left: set[bytes] = set()
    for _ in range(3000):
        happens = rng.random()
        payment = next(payments) if happens < 0.3 else rng.randrange(max(1, next(payments)))
        if happens < 0.6:
            one = leg(payment, kind=rng.choice(KINDS)) if happens < 0.3 else rng.choice((inquiry, reversal))(payment)
            if one.leg_id not in bank.offer(one):
                sent[one.leg_id] = one
        elif happens < 0.75:
            left.update(one.leg_id for one in bank.take())
        elif happens < 0.95 and left:
            some = [sent[leg_id] for leg_id in rng.sample(sorted(left), min(3, len(left))) if leg_id in sent]
            bank.answer(*some, epoch=rng.choice((bank.epoch, max(1, bank.epoch - 1))))
        elif happens < 0.97:
            bank.epoch = connected(bank.windows)
        elif happens < 0.98:
            bank.windows.disconnect(BANK, bank.epoch)
            bank.epoch = connected(bank.windows)
        else:
            bank.now += rng.choice((1, PLACE_US // 2, PLACE_US, -PLACE_US // 3))
        assert 0 <= bank.taken <= most.total
    while waiting := bank.take():
        bank.answer(*waiting)
    bank.windows.expire(bank.now + 2 * PLACE_US)
    assert bank.taken == 0
    fresh = [leg(payment) for payment in range(10**6, 10**6 + most.money)]
    assert bank.offer(*fresh) == []
    assert bank.offer(leg(5)) == [leg(5).leg_id]
