"""Lists of payments on both journals: whatever the filter, pages hold what fits, each payment once, newest first, also
while payments are made, and each page reads a bounded number of rows. An index kept beside a journal follows it."""

from __future__ import annotations

import itertools
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import filters, lists
from gateway.calls import LIST
from gateway.engine.answer import id_text
from gateway.engine.model import Payment
from gateway.engine.states import State
from gateway.filters import PaymentFilter
from gateway.journal import sqlite_index
from gateway.journal.interface import Reader
from gateway.journal.listing import ListedRow, Scan
from gateway.journal.postgres import PostgresJournal
from gateway.journal.sqlite_index import index_path
from gateway.journal.sqlite_reader import SqliteReader
from gateway.lists import SCAN_MAX, Lists, page
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError
from hutong_contract.limits import PAYMENTS_PAGE_MAX
from tests.deadlines import CALL_S
from tests.gateway.engine.world import World

MERCHANTS = ("m1", "m2", "m3")
TERMINALS = ("t1", "t2")
TOKENS = tuple(bytes([number]) * 16 for number in range(1, 5))
SEED = 20_261
PAGE = 7


@pytest.fixture
def reader(world: World) -> Iterator[Reader]:
    one = world.open_reader()
    yield one
    one.close()


def put_down(world: World, rng: random.Random, count: int) -> list[Payment]:
    """Payments of several merchants and tokens that end in every way, are held, refunded, or under way."""
    made: list[Payment] = []
    for acquirer in ("acquirer-a", "acquirer-b"):
        world.participants[acquirer].ledger.open_accounts([(merchant, "CNY", 0) for merchant in MERCHANTS[:2]])
    for number in range(count):
        world.now_us += 1000
        changes: dict[str, Any] = {
            "merchant_id": rng.choice(MERCHANTS),
            "terminal_id": rng.choice(TERMINALS),
            "account_ref": rng.choice(TOKENS),
        }
        one = world.hold(500, **changes) if number % 9 == 0 else world.draft(500, **changes)
        made.append(one)
        caller = world.create(one)
        if number % 4 == 0:
            world.tick()
            world.cancel(one.payment_id)
        if number % 3:
            world.run(seconds=3)
        if caller.answered and caller.state is State.SUCCEEDED and number % 5 == 0:
            world.now_us += 1000
            world.refund(caller.payment, 100)
            world.run(seconds=3)
    world.lost = lambda _: True
    for _ in range(5):  # under way for as long as the test lasts
        world.now_us += 1000
        made.append(world.draft(500, merchant_id="m2", terminal_id="t1", account_ref=TOKENS[0]))
        world.create(made[-1])
    world.tick()
    return made


def every(world: World) -> list[Payment]:
    """All payments, newest first, as the journal has them."""
    reader = world.open_reader()
    try:
        ids = [bytes(row[0]) for row in reader.rows("SELECT payment_id FROM payments ORDER BY payment_id DESC", ())]
        found = {one.payment_id: one for one in reader.payments(sorted(ids))}
        return [found[payment_id] for payment_id in ids]
    finally:
        reader.close()


def turned(reader: Reader, wanted: PaymentFilter, size: int, between: Callable[[], None] = lambda: None) -> list[str]:
    """The ids on all pages."""
    ids: list[str] = []
    token = ""
    while True:
        answer = page(reader, wanted, size, filters.page_begins_before(wanted, token))
        assert len(answer.payments) <= size
        ids += [one.payment_id for one in answer.payments]
        token = answer.next_page_token
        if not token:
            return ids
        between()


def asked(**fields: object) -> PaymentFilter:
    return filters.checked(pb.PaymentFilter(**fields))  # type: ignore[arg-type]


def test_every_combination_of_filters_finds_what_fits(world: World, reader: Reader) -> None:
    rng = random.Random(SEED)
    made = put_down(world, rng, 60)
    payments = every(world)
    states = {one.state for one in payments}
    assert {State.SUCCEEDED, State.CANCELLED, State.HELD, State.DEBITING} <= states
    assert any(one.original_id for one in payments)
    start = pb.PaymentFilter()
    start.start_time.FromMicroseconds(made[15].created_us)
    start.end_time.FromMicroseconds(made[50].created_us)
    spans: tuple[dict[str, object], ...] = ({}, {"start_time": start.start_time, "end_time": start.end_time})
    places: tuple[dict[str, object], ...] = ({}, {"merchant_id": "m2"}, {"merchant_id": "m2", "terminal_id": "t1"})
    of_states: tuple[tuple[State, ...], ...] = (
        (),
        (State.SUCCEEDED,),
        (State.CANCELLED, State.HELD),
        (State.DEBITING,),
        (State.CREDITING, State.CANCELLED, State.DECLINED),
        tuple(State),
    )
    for place, token, wanted_states, kind, span in itertools.product(
        places, (b"", TOKENS[0]), of_states, (0, 1, 2), spans
    ):
        fields = {**place, "token_ref": token, "states": [int(one) for one in wanted_states], "kind": kind, **span}
        expected = [
            id_text(one.payment_id)
            for one in payments
            if place.get("merchant_id", one.merchant_id) == one.merchant_id
            and place.get("terminal_id", one.terminal_id) == one.terminal_id
            and token in (b"", one.account_ref)
            and (not wanted_states or one.state in wanted_states)
            and kind in (0, one.kind)
            and (not span or made[15].payment_id[:6] <= one.payment_id[:6] < made[50].payment_id[:6])
        ]
        assert turned(reader, asked(**fields), PAGE) == expected, fields


def test_what_is_made_meanwhile_changes_no_page_that_follows(world: World, reader: Reader) -> None:
    put_down(world, random.Random(SEED), 20)
    world.lost = lambda _: False
    for fields in ({}, {"merchant_id": "m1"}, {"token_ref": TOKENS[1]}):
        before = turned(reader, asked(**fields), PAGE)

        def pay() -> None:
            world.now_us += 1000
            world.create(world.draft(500, merchant_id="m1", account_ref=TOKENS[1]))
            world.run(seconds=3)

        assert turned(reader, asked(**fields), 3, pay) == before
        assert len(turned(reader, asked(**fields), PAGE)) > len(before)


def test_what_is_committed_is_listed_at_once_and_what_is_not_never(world: World, reader: Reader) -> None:
    """An admission that a condition refuses leaves nothing in any list."""
    for token in TOKENS:
        first = world.create(world.draft(merchant_id="m1", account_ref=token, spends=(token,)))
        second = world.create(world.draft(merchant_id="m1", account_ref=token, spends=(token,)))
        world.run()
        assert (first.state, second.error.name) == (State.SUCCEEDED, "CODE_SPENT")
        for wanted in (asked(token_ref=token), asked(merchant_id="m1"), asked()):
            assert page(reader, wanted, 1, wanted.before_id).payments[0].payment_id == first.payment.payment_id
        assert len(turned(reader, asked(token_ref=token), PAGE)) == 1
    assert len(turned(reader, asked(merchant_id="m1"), PAGE)) == len(TOKENS)


class Counting:
    """A reader that counts the rows that scans bring."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.most = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._reader, name)

    def scan(self, scan: Scan) -> list[ListedRow]:
        found = self._reader.scan(scan)
        self.most = max(self.most, len(found))
        return found


def test_a_page_reads_a_bounded_number_of_rows(world: World, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "SCAN_MAX", 10)
    for _ in range(40):
        world.now_us += 1000
        world.create(world.draft(10, merchant_id="m1", terminal_id="t1", account_ref=TOKENS[0]))
    rare = world.create(world.draft(10, merchant_id="m1", terminal_id="t2", account_ref=TOKENS[0]))
    world.now_us += 1000
    for _ in range(35):
        world.now_us += 1000
        world.create(world.draft(10, merchant_id="m1", terminal_id="t1", account_ref=TOKENS[0]))
    world.run()
    counting = Counting(reader)
    for fields in ({"merchant_id": "m1", "terminal_id": "t2"}, {"token_ref": TOKENS[0], "kind": 2}, {"kind": 2}):
        wanted = asked(**fields)
        first = page(counting, wanted, 5, wanted.before_id)  # type: ignore[arg-type]
        assert not first.payments
        assert bool(first.next_page_token) is (fields != {"kind": 2}), "refunds have an index of their own"
        found = turned(counting, wanted, 5)  # type: ignore[arg-type]
        assert found == ([rare.payment.payment_id] if "terminal_id" in fields else [])
    assert counting.most <= 10


@pytest.mark.parametrize(
    "scan",
    [
        pytest.param(Scan(b"\0" * 16, b"\xff" * 16, 5, merchant_id="m1"), id="merchant"),
        pytest.param(Scan(b"\0" * 16, b"\xff" * 16, 5, token_ref=TOKENS[0]), id="token"),
        pytest.param(Scan(b"\0" * 16, b"\xff" * 16, 5, refunds=True), id="refunds"),
        pytest.param(Scan(b"\0" * 16, b"\xff" * 16, 5, states=(9, 10)), id="states"),
        pytest.param(Scan(b"\0" * 16, b"\xff" * 16, 5), id="all"),
    ],
)
def test_each_scan_is_served_from_an_index(scan: Scan, url: str) -> None:
    """PostgreSQL's plan, with many payments: no table is read or sorted as a whole."""
    import psycopg

    from gateway.journal import listing

    PostgresJournal(url, 1, holder="test").close()
    made = listing.by_token(scan) if scan.token_ref else listing.by_merchant(scan) if scan.merchant_id else None
    query, values = made or listing.by_nothing_shared(scan, hints=False)
    with psycopg.connect(url, autocommit=True) as connection:
        columns = connection.execute(
            "SELECT column_name, data_type, is_nullable FROM information_schema.columns "
            "WHERE table_name = 'payments' AND table_schema = current_schema() ORDER BY ordinal_position"
        ).fetchall()
        given = {
            "payment_id": "decode(lpad(to_hex(n), 32, '0'), 'hex')",
            "idempotency": "decode(lpad(to_hex(n), 32, '0'), 'hex')",
            "merchant_id": "'m' || (n % 50)",
            "account_ref": "decode(lpad(to_hex(n % 5000), 32, '0'), 'hex')",
            "state": "7",
            "open": "0",
            "amount_minor": "10",
            "original_id": "NULL",
        }
        filler = {"bytea": "''::bytea", "text": "''", "bigint": "0", "smallint": "0"}
        picked = ", ".join(given.get(name, filler[kind]) for name, kind, _ in columns)
        names = ", ".join(name for name, _, _ in columns)
        connection.execute(
            f"INSERT INTO payments ({names}) SELECT {picked} FROM generate_series(1, 20000) AS n".encode()
        )
        connection.execute("ANALYZE payments")
        plan = "\n".join(
            row[0] for row in connection.execute(f"EXPLAIN {query.replace('?', '%s')}".encode(), list(values))
        )
    assert "Seq Scan" not in plan, plan
    assert "Sort Key: p.payment_id" not in plan or scan.states, plan
    index = {"m1": "payments_merchant"}.get(scan.merchant_id) or ("payments_token" if scan.token_ref else "Index")
    assert index in plan, plan


# -- the index beside a journal on SQLite ------------------------------------------------------------------------------


def ids_of(path: Path, merchant_id: str) -> list[str]:
    reader = SqliteReader(path)
    try:
        return turned(reader, asked(merchant_id=merchant_id), PAGE)
    finally:
        reader.close()


def pay(world: World, count: int) -> list[str]:
    """Ids of new payments to m1, newest first."""
    callers = []
    for _ in range(count):
        world.now_us += 1000
        callers.append(world.create(world.draft(10, account_ref=TOKENS[0])))
    world.run()
    return [caller.payment.payment_id for caller in reversed(callers)]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def test_the_index_follows_in_steps_and_goes_on_where_it_was(own: World, monkeypatch: pytest.MonkeyPatch) -> None:
    path = own.folder / "gateway.db"
    monkeypatch.setattr(sqlite_index, "EVENTS_PER_STEP", 4)
    first = pay(own, 5)
    assert ids_of(path, "m1") == first
    second = pay(own, 5)
    index = sqlite_index.SqliteIndex(path)
    steps = 1
    while not index.follow():
        steps += 1
    index.close()
    assert steps == -(-5 * 3 // 4), "three events for each payment, none of them twice"
    assert ids_of(path, "m1") == second + first


def test_a_call_that_the_index_is_too_far_behind_for_is_told_to_come_back(
    own: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = pay(own, 40)
    monkeypatch.setattr(sqlite_index, "EVENTS_PER_STEP", 10)
    reader = own.open_reader()
    wanted = asked(merchant_id="m1")
    with pytest.raises(HutongError) as raised:
        page(reader, wanted, 50, wanted.before_id)
    assert raised.value.name == "LIST_BEHIND"
    assert raised.value.retry_us
    assert [one.payment_id for one in page(reader, wanted, 50, wanted.before_id).payments] == made
    reader.close()


def test_an_index_of_another_journal_or_a_broken_one_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = World(tmp_path / "one"), World(tmp_path / "two")
    theirs, ours = pay(one, 6), pay(two, 9)
    path = tmp_path / "two" / "gateway.db"
    assert ids_of(tmp_path / "one" / "gateway.db", "m1") == theirs
    for suffix in ("", "-wal", "-shm"):
        source = Path(f"{index_path(tmp_path / 'one' / 'gateway.db')}{suffix}")
        if source.exists():
            Path(f"{index_path(path)}{suffix}").write_bytes(source.read_bytes())
    assert ids_of(path, "m1") == ours
    index_path(path).write_bytes(b"no database" * 1000)
    assert ids_of(path, "m1") == ours
    index_path(path).unlink()
    assert ids_of(path, "m1") == ours
    with sqlite3.connect(index_path(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert ids_of(path, "m1") == ours
    one.close()
    two.close()


# -- the thread --------------------------------------------------------------------------------------------------------


class Asked:
    """A ListPayments call."""

    method = LIST
    caller = ""
    time_left_us: int | None = None

    def __init__(self, **fields: object) -> None:
        self.payload = pb.ListPaymentsRequest(**fields).SerializeToString()  # type: ignore[arg-type]
        self.told: bytes | HutongError | None = None
        self._done = threading.Event()

    def answer(self, payload: bytes) -> None:
        self.told = payload
        self._done.set()

    def fail(self, error: HutongError) -> None:
        self.told = error
        self._done.set()

    @property
    def name(self) -> str:
        assert self._done.wait(CALL_S), "no answer"
        return self.told.name if isinstance(self.told, HutongError) else ""

    @property
    def page(self) -> pb.ListPaymentsResponse:
        assert not self.name, self.told
        assert isinstance(self.told, bytes)
        return pb.ListPaymentsResponse.FromString(self.told)


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "page size": ({"page_size": -1}, "FIELD_INVALID"),
    "garbage token": ({"page_token": "no such page"}, "PAGE_TOKEN_INVALID"),
    "long token": ({"page_token": "A" * 100_000}, "PAGE_TOKEN_INVALID"),
    "terminal alone": ({"filter": pb.PaymentFilter(terminal_id="t1")}, "FIELD_MISSING"),
    "token reference": ({"filter": pb.PaymentFilter(token_ref=b"short")}, "FIELD_INVALID"),
    "merchant": ({"filter": pb.PaymentFilter(merchant_id="m\0")}, "FIELD_INVALID"),
    "long merchant": ({"filter": pb.PaymentFilter(merchant_id="m" * 65)}, "FIELD_INVALID"),
    "state": ({"filter": pb.PaymentFilter(states=[99])}, "FIELD_INVALID"),  # type: ignore[list-item]
    "states": ({"filter": pb.PaymentFilter(states=[7] * 40)}, "FIELD_INVALID"),  # type: ignore[list-item]
    "kind": ({"filter": pb.PaymentFilter(kind=3)}, "FIELD_INVALID"),  # type: ignore[arg-type]
}


def test_calls_are_answered_and_wrong_ones_refused(own: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = pay(own, 5)
    served = Lists(own.open_reader)
    try:
        for what, (fields, reason) in REFUSED.items():
            call = Asked(**fields)
            served.submit(call)
            assert call.name == reason, what
        first = Asked(page_size=3, filter=pb.PaymentFilter(merchant_id="m1"))
        served.submit(first)
        assert [one.payment_id for one in first.page.payments] == made[:3]
        assert first.page.payments[0].token_ref == TOKENS[0]
        other = Asked(page_token=first.page.next_page_token, filter=pb.PaymentFilter(merchant_id="m2"))
        served.submit(other)
        assert other.name == "PAGE_TOKEN_INVALID", "a token belongs to its filter"
        rest = Asked(page_token=first.page.next_page_token, filter=pb.PaymentFilter(merchant_id="m1"), page_size=999)
        served.submit(rest)
        assert [one.payment_id for one in rest.page.payments] == made[3:]
        assert not rest.page.next_page_token
        monkeypatch.setattr(lists, "page", lambda *_: 1 // 0)
        broken = Asked()
        served.submit(broken)
        assert broken.name == "INTERNAL"
        monkeypatch.undo()
        after = Asked()
        served.submit(after)
        assert len(after.page.payments) == 5
    finally:
        served.close()
    late = Asked()
    served.submit(late)
    assert late.name == "DRAINING"
    assert SCAN_MAX >= PAYMENTS_PAGE_MAX


def test_the_index_is_brought_up_to_date_between_calls(own: World) -> None:
    pay(own, 5)
    served = Lists(own.open_reader, threaded=False)
    assert not served.turn(), "one step was enough"
    with sqlite3.connect(index_path(own.folder / "gateway.db")) as connection:
        assert connection.execute("SELECT count(*) FROM by_token").fetchone() == (5,)
    served.close()
