"""Watching payments: one costs its own events however many others there are, and nobody who is behind, full or broken
keeps the others waiting."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from gateway.engine.answer import id_text
from gateway.engine.model import Kind, Payment, Writes
from gateway.engine.states import State
from gateway.journal.interface import EventRow
from gateway.journal.sqlite import SqliteJournal
from gateway.journal.sqlite_reader import SqliteReader
from gateway.watch import (
    EVENTS_PER_MESSAGE_MAX,
    PROGRESS_EVENTS,
    READ_WORK,
    SUBSCRIBERS_MAX,
    WORK_PER_TURN_MAX,
    WatchHub,
)
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError

OTHERS = 100_000
SOME = 10_000
READS_BEHIND_MAX = WORK_PER_TURN_MAX // READ_WORK + 1


def payment(number: int) -> bytes:
    return number.to_bytes(16, "big")


class Stream:
    """A watcher's end of a stream; `full` is how its connection stands."""

    def __init__(self, asker: str = "", origin: str = "here") -> None:
        self.asker = asker
        self.origin = origin
        self.full = False
        self.closed = False
        self.seen: list[int] = []
        self.error: HutongError | None = None

    def try_send(self, message: bytes) -> bool:
        if self.full:
            return False
        self.seen += [event.sequence for event in pb.WatchPaymentsResponse.FromString(message).events]
        return True

    def fail(self, error: HutongError) -> None:
        self.error, self.closed = error, True


class Broken(Stream):
    """A stream whose transport has a defect."""

    def try_send(self, message: bytes) -> bool:
        raise OSError("no such call")


class CountingReader(SqliteReader):
    """Says what it was asked."""

    reads = 0
    rows_read = 0

    def events(self, after_sequence: int, limit: int) -> list[EventRow]:
        return self._count(super().events(after_sequence, limit))

    def events_of(self, watched: Mapping[bytes, int], limit: int) -> list[EventRow]:
        return self._count(super().events_of(watched, limit))

    def _count(self, rows: list[EventRow]) -> list[EventRow]:
        self.reads += 1
        self.rows_read += len(rows)
        return rows


class Scene:
    """A journal with the events of many payments, and a hub whose turns the test takes."""

    def __init__(self, folder: Path) -> None:
        self.journal = SqliteJournal(folder / "journal.db")
        self.path = folder / "journal.db"
        self.open_reader()
        self.hub = WatchHub(lambda: self.reader, threaded=False)
        self.events = 0

    def open_reader(self) -> None:
        self.reader = CountingReader(self.path)

    def publish(self, *payments: int) -> None:
        writes = Writes()
        writes.events.extend((payment(one), int(State.SUCCEEDED), 1_000_000) for one in payments)
        self.journal.commit(writes)
        self.events += len(payments)

    def watch(self, stream: Stream, *, after: int = 0, only: int | None = None) -> Stream:
        name = "" if only is None else id_text(payment(only))
        request = pb.WatchPaymentsRequest(after_sequence=after, payment_id=name)
        self.hub.subscribe(request.SerializeToString(), stream)
        return stream


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    one = Scene(tmp_path)
    yield one
    one.hub.close()
    one.reader.close()
    one.journal.close()


def test_one_payment_costs_its_own_events(scene: Scene) -> None:
    scene.publish(7, 8)
    scene.publish(*range(1000, 1000 + OTHERS))
    scene.publish(7)
    begun_s = time.thread_time()
    assert len(scene.reader.events(0, OTHERS * 2)) == OTHERS + 3
    all_s, scene.reader.rows_read = time.thread_time() - begun_s, 0
    streams = [scene.watch(Stream(), only=7), scene.watch(Stream(), only=8), scene.watch(Stream(), only=9)]
    late = scene.watch(Stream(), only=7, after=1)
    begun_s = time.thread_time()
    assert not scene.hub.turn()
    assert time.thread_time() - begun_s < all_s / 20
    assert [one.seen for one in streams] == [[1, OTHERS + 3], [2], []]
    assert late.seen == [OTHERS + 3]
    assert scene.reader.rows_read == 3
    scene.publish(9, 8)
    scene.hub.turn()
    assert [one.seen for one in streams] == [[1, OTHERS + 3], [2, OTHERS + 5], [OTHERS + 4]]


def test_those_behind_do_not_keep_those_at_the_head_waiting(scene: Scene) -> None:
    scene.publish(*range(1000, 1000 + SOME))
    at_head, one = scene.watch(Stream("head"), after=SOME), scene.watch(Stream("one"), only=5)
    while scene.hub.turn():
        pass
    behind = [scene.watch(Stream(f"behind {number}"), after=number) for number in range(16)]
    turns = 0
    while True:
        scene.publish(5)
        before = scene.reader.reads
        more = scene.hub.turn()
        turns += 1
        assert scene.reader.reads - before <= READS_BEHIND_MAX + 2
        assert at_head.seen[-1] == one.seen[-1] == scene.events
        if turns == 20:
            # In rotation: nobody is far ahead of another.
            assert max(len(s.seen) for s in behind) - min(len(s.seen) for s in behind) <= 2 * EVENTS_PER_MESSAGE_MAX
        if turns > 20 and not more:
            break
        if turns > 25:
            for stream in behind:
                stream.closed = True
    assert at_head.seen == one.seen == list(range(SOME + 1, SOME + turns + 1))


def test_a_turn_may_leave_out_those_behind(scene: Scene) -> None:
    """So the thread keeps payments and those at the head ahead of others' catching up."""
    scene.publish(*range(1000, 1000 + SOME))
    at_head = scene.watch(Stream("head"), after=SOME)
    assert not scene.hub.turn()
    behind, one = scene.watch(Stream("behind")), scene.watch(Stream("one"), only=5)
    scene.publish(5)
    assert scene.hub.turn(behind=False), "somebody is left"
    assert (at_head.seen, one.seen, behind.seen) == ([SOME + 1], [SOME + 1], [])
    while scene.hub.turn():
        pass
    assert behind.seen == list(range(1, SOME + 2))


def test_one_who_is_behind_gets_everything_in_order(scene: Scene) -> None:
    scene.publish(*range(1000, 1000 + SOME))
    stream = scene.watch(Stream())
    for number in range(5000):
        stream.full = number % 3 == 0
        if not scene.hub.turn() and len(stream.seen) == SOME:
            break
    assert stream.seen == list(range(1, SOME + 1))


def test_full_connections_cost_neither_turns_nor_reads(scene: Scene) -> None:
    scene.publish(*range(1000, 1000 + SOME))
    stuck = [scene.watch(Stream(f"stuck {number}"), after=number) for number in range(12)]
    for stream in stuck:
        stream.full = True
    while scene.hub.turn():
        pass
    before = scene.reader.reads
    assert not scene.hub.turn()
    assert scene.reader.reads == before
    good = scene.watch(Stream("good"), after=SOME - 10)
    assert not scene.hub.turn()
    assert len(good.seen) == 10
    for stream in stuck:
        stream.full = False
    while scene.hub.turn():
        pass
    for number, stream in enumerate(stuck):
        assert stream.seen == list(range(number + 1, SOME + 1))


def test_a_broken_stream_is_given_up_and_the_others_go_on(scene: Scene) -> None:
    scene.watch(Broken("broken"))
    scene.watch(Broken("also"), only=5)
    good, one = scene.watch(Stream("good")), scene.watch(Stream("one"), only=5)
    for _ in range(3):
        scene.publish(5)
        scene.hub.turn()
    assert good.seen == one.seen == [1, 2, 3]


def test_a_journal_that_cannot_be_read_is_read_again(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    stream = scene.watch(Stream())
    scene.hub.turn()
    scene.publish(5)
    scene.reader.close()  # whatever it is asked now raises
    for _ in range(2):
        assert not scene.hub.turn()
        assert scene.hub.failure is not None
    assert len([record for record in caplog.records if record.exc_info]) == 1
    scene.open_reader()
    scene.hub.turn()
    assert scene.hub.failure is None
    assert stream.seen == [1]


# -- filters ---------------------------------------------------------------------------------------------------


class Told(Stream):
    """Keeps whole messages."""

    def __init__(self, asker: str = "") -> None:
        super().__init__(asker)
        self.messages: list[pb.WatchPaymentsResponse] = []

    def try_send(self, message: bytes) -> bool:
        if self.full:
            return False
        self.messages.append(pb.WatchPaymentsResponse.FromString(message))
        return super().try_send(message)

    @property
    def events(self) -> list[pb.PaymentEvent]:
        return [event for message in self.messages for event in message.events]


def token(number: int) -> bytes:
    return bytes([number % 251]) * 16


def admit(scene: Scene, *numbers: int) -> None:
    """Payments with a row: to merchant m0, m1 or m2, each from a token of its own."""
    writes = Writes()
    for number in numbers:
        writes.admissions.append(
            Payment(
                payment_id=payment(number),
                kind=Kind.PAYMENT,
                amount_minor=100 + number,
                currency="CNY",
                debtor="issuer-a",
                creditors=("acquirer-a",),
                created_us=1,
                deadline_us=2,
                idempotency=payment(number),
                fingerprint=b"f" * 16,
                merchant_id=f"m{number % 3}",
                terminal_id="t1",
                account_ref=token(number),
                payer_key=int(pb.KEY_KIND_PAYMENT_CODE),
            )
        )
    scene.journal.commit(writes)
    scene.events += len(numbers)


def ask(scene: Scene, stream: Stream, **fields: object) -> None:
    scene.hub.subscribe(pb.WatchPaymentsRequest(**fields).SerializeToString(), stream)  # type: ignore[arg-type]


def settle(scene: Scene) -> None:
    while scene.hub.turn():
        pass


def test_events_say_what_was_paid_with_which_token(scene: Scene) -> None:
    admit(scene, 5)
    stream = Told()
    ask(scene, stream, filter=pb.PaymentFilter(token_ref=token(5)))
    settle(scene)
    (event,) = stream.events
    assert (event.amount_minor, event.currency, event.merchant_id, event.terminal_id) == (105, "CNY", "m2", "t1")
    assert (event.token_ref, event.payer_key, event.kind) == (
        token(5),
        pb.KEY_KIND_PAYMENT_CODE,
        pb.PAYMENT_KIND_PAYMENT,
    )
    assert (event.state, event.payment_id) == (pb.PAYMENT_STATE_DEBITING, id_text(payment(5)))


def test_each_filter_lets_through_what_fits_and_nothing_else(scene: Scene) -> None:
    admit(scene, *range(1, 31))
    scene.publish(3, 4)
    mine, shop, ended, one, everything = Told("a"), Told("b"), Told("c"), Told("d"), Told("e")
    ask(scene, mine, filter=pb.PaymentFilter(token_ref=token(3)))
    ask(scene, shop, filter=pb.PaymentFilter(merchant_id="m1", terminal_id="t1"))
    ask(scene, ended, filter=pb.PaymentFilter(states=[pb.PAYMENT_STATE_SUCCEEDED]))
    ask(scene, one, payment_id=id_text(payment(4)), filter=pb.PaymentFilter(states=[pb.PAYMENT_STATE_SUCCEEDED]))
    ask(scene, everything)
    settle(scene)
    assert mine.seen == [3, 31]
    assert shop.seen == [*range(1, 31, 3), 32]
    assert ended.seen == [31, 32]
    assert one.seen == [32]
    assert everything.seen == list(range(1, 33))
    scene.publish(4, 3, 3)
    settle(scene)
    assert (mine.seen, shop.seen[-1], ended.seen) == ([3, 31, 34, 35], 33, [31, 32, 33, 34, 35])
    assert everything.messages[-1].sequence == 35


def test_from_now_begins_at_the_newest_event_and_says_so(scene: Scene) -> None:
    admit(scene, *range(1, 31))
    stream, mine = Told(), Told("b")
    ask(scene, stream, from_now=True)
    ask(scene, mine, from_now=True, filter=pb.PaymentFilter(token_ref=token(40)))
    before = scene.reader.reads
    settle(scene)
    assert [(len(message.events), message.sequence) for message in stream.messages] == [(0, 30)]
    assert scene.reader.rows_read == 0
    assert scene.reader.reads <= before + 1
    admit(scene, 40, 41)
    settle(scene)
    assert (stream.seen, mine.seen) == ([31, 32], [31])
    refused = Told("c")
    ask(scene, refused, from_now=True, after_sequence=3)
    assert refused.error is not None
    assert refused.error.name == "FIELD_INVALID"


def test_from_now_waits_for_a_journal_that_cannot_be_read(scene: Scene) -> None:
    admit(scene, 1, 2)
    stream = Told()
    ask(scene, stream, from_now=True)
    scene.reader.close()
    scene.hub.turn()
    assert scene.hub.failure is not None
    scene.open_reader()
    settle(scene)
    assert [message.sequence for message in stream.messages] == [2]
    assert not stream.seen


def test_who_is_passed_by_hears_how_far_the_stream_has_come(scene: Scene) -> None:
    admit(scene, 7)
    stream = Told()
    ask(scene, stream, filter=pb.PaymentFilter(token_ref=token(7)))
    settle(scene)
    scene.publish(*range(1000, 1000 + PROGRESS_EVENTS + EVENTS_PER_MESSAGE_MAX))
    settle(scene)
    assert stream.seen == [1]
    assert len(stream.messages) == 2
    come_to = stream.messages[-1].sequence
    assert come_to > PROGRESS_EVENTS
    scene.publish(7)
    again = Told("again")
    ask(scene, again, after_sequence=come_to, filter=pb.PaymentFilter(token_ref=token(7)))
    settle(scene)
    assert again.seen == [scene.events]


def test_a_thousand_filters_cost_one_read_and_a_look_each(scene: Scene) -> None:
    streams = [Told(f"caller {number}") for number in range(SUBSCRIBERS_MAX)]
    for number, stream in enumerate(streams):
        ask(scene, stream, from_now=True, filter=pb.PaymentFilter(token_ref=token(number)))
    settle(scene)
    admit(scene, *range(200))
    scene.reader.reads = 0
    begun_s = time.thread_time()
    settle(scene)
    assert scene.reader.reads == 1
    assert time.thread_time() - begun_s < 1.0, "not a look at each event for each subscriber"
    assert [len(stream.seen) for stream in streams[:200]] == [1] * 200


def test_a_filter_that_is_wrong_is_refused(scene: Scene) -> None:
    stream = Told()
    ask(scene, stream, filter=pb.PaymentFilter(terminal_id="t1"))
    assert stream.error is not None
    assert stream.error.name == "FIELD_MISSING"


def test_invented_names_do_not_shut_out_who_comes_from_elsewhere(scene: Scene) -> None:
    """When all places are taken, who has fewer streams gets one of those who have most: connections are counted, since
    names cost nothing."""
    crowd = [scene.watch(Stream(f"name {number}", "one connection")) for number in range(SUBSCRIBERS_MAX)]
    assert all(one.error is None for one in crowd)
    again = scene.watch(Stream("another name", "one connection"))
    assert again.error is not None
    assert again.error.name == "OVERLOADED"
    honest = [scene.watch(Stream("honest", "another connection")) for _ in range(3)]
    assert [one.error for one in honest] == [None] * 3
    gone = [one for one in crowd if one.error is not None]
    assert [one.error and one.error.name for one in gone] == ["OVERLOADED"] * 3
    scene.publish(1)
    settle(scene)
    assert all(one.seen for one in honest)
    assert all(one.seen for one in crowd if one.error is None)
    assert not any(one.seen for one in gone)
