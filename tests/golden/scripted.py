"""A fixed run of the real engine, and what callers and the journal have of it, as text.

Every time, id and amount is said here, so that the same code gives the same bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf import text_format
from google.protobuf.message import Message

from gateway.calls import CREATE_BATCH, GET, LIST, RECEIPT, BatchWaiter
from gateway.directory import Merchant
from gateway.engine.clock import PaymentIds
from gateway.engine.model import Cancel, Close, Create, Decline, Payment
from gateway.journal.schema import sqlite_statements
from gateway.lists import Lists
from gateway.queries import Queries
from gateway.watch import message as watched
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError, Reason
from hutong_contract.stored_schema import columns_of
from sandbox.participants.script import Behaviour, Plan
from tests.gateway.engine.world import MERCHANT, Caller, World
from tokenization.interface import Condition

SEED: Final = 20_260
DECLINE: Final = Plan(Behaviour.DECLINE, code="05")
LIMIT: Final = b"a limit of a day"
THE_ORDER: Final = b"a shop's order.."
CODE: Final = b"a one-time code."
ORDER: Final[Mapping[str, str]] = {
    "payments": "payment_id",
    "legs": "payment_id, number",
    "postings": "posting",
    "events": "sequence",
    "spends": "spend",
    "counters": "counter",
    "refusals": "payment_id",
    "routes": "route_id",
    "judgements": "risk_id",
    "windows": "number",
    "carried": "number, currency",
}
"""Tables of the journal that every database has, and the order of their rows."""
SEQUENCES: Final = frozenset({"sequence", "after_sequence", "last_sequence"})
"""Columns that number what was committed; how it is counted is each journal's own affair, the order is not."""
UNNUMBERED: Final = frozenset({"posting"})


@dataclass
class Run:
    """The world, and the answers by name, in the order in which they were asked for."""

    world: World
    answers: dict[str, Caller] = field(default_factory=dict)
    kinds: dict[str, type[Message]] = field(default_factory=dict)

    def ask(self, name: str, caller: Caller, kind: type[Message] = pb.CreatePaymentResponse) -> Caller:
        self.answers[name], self.kinds[name] = caller, kind
        self.world.run()
        return caller

    def pay(self, name: str, amount_minor: int = 1000, **changes: Any) -> Payment:
        payment = self.world.draft(amount_minor, **changes)
        self.ask(name, self.world.create(payment))
        return payment

    def later(self, seconds: int = 1) -> None:
        self.world.now_us += seconds * 1_000_000


@dataclass
class Asked:
    """A call as a front gives it to what answers it."""

    method: int
    payload: bytes
    told: Caller = field(default_factory=Caller)
    caller: str = ""
    time_left_us: int | None = None

    def answer(self, payload: bytes) -> None:
        self.told.answer(payload)

    def fail(self, error: HutongError) -> None:
        self.told.fail(error)


def scripted(world: World) -> Run:
    """Payments that end in every way, and what is asked about them."""
    world.ids = PaymentIds(random.Random(SEED).randbytes)
    run = Run(world)
    _payments(run)
    _holds(run)
    _refunds(run)
    _refusals(run)
    world.waiting.append(Close(1, Caller()))
    world.run()
    _batch(run)
    _queries(run)
    return run


def _payments(run: Run) -> None:
    world = run.world
    paid = run.pay(
        "create: succeeded",
        1250,
        caller="terminal 7",
        idempotency=b"order 17........",
        account_ref=b"account's token.",
        key_ref=b"payer's own key.",
        last_four="0009",
        payer_key=pb.KEY_KIND_PAYMENT_CODE,
        payee_key=pb.KEY_KIND_MERCHANT,
        terminal_id="m1t1",
        reference="订单 17",
        route='[["acquirer-a",25.5,["cost 25 bp"]],["acquirer-b",37.0,["cost 37 bp"]]]',
        route_id=17,
        risk='{"action":"approve","score":5,"tier":"A","rules":[["small",5,"approve"]],"version":"0123456789abcdef"}',
        risk_id=-5,
        spends=(CODE,),
    )
    again = world.draft(1250, idempotency=b"order 17........", fingerprint=paid.fingerprint)
    run.ask("create: the same key again", world.create(again))
    other = world.draft(1250, idempotency=b"order 17........", fingerprint=b"something else..")
    run.ask("create: the same key with another payload", world.create(other))
    run.pay("create: a code that was spent", spends=(CODE,))
    run.pay("create: an order", 20, order=THE_ORDER)
    run.pay("create: an order that is paid", 20, order=THE_ORDER)
    run.later()
    world.participants["issuer-a"].plan_next(DECLINE)
    run.pay("create: declined")
    run.pay("create: more than there is", 2_000_000)
    run.later()
    world.participants["issuer-a"].plan_next(Plan(Behaviour.LOSE_ANSWER))
    run.pay("create: an answer was lost")
    world.participants["acquirer-a"].plan_next(DECLINE)
    run.pay("create: by the second acquirer")
    for acquirer in ("acquirer-a", "acquirer-b"):
        world.participants[acquirer].plan_next(DECLINE)
    run.pay("create: refused by all acquirers")
    run.later()
    world.participants["issuer-a"].plan_next(Plan(Behaviour.LOSE_ANSWER))
    slow = world.draft(700)
    impatient = world.create(slow, reply_in_us=200_000)
    world.tick()
    cancelling = Caller()
    world.waiting.append(Cancel(slow.payment_id, cancelling))
    run.ask("create: cancelled meanwhile", impatient)
    run.answers["cancel"], run.kinds["cancel"] = cancelling, pb.CancelPaymentResponse
    run.ask("cancel: too late", world.cancel(paid.payment_id), pb.CancelPaymentResponse)


def _holds(run: Run) -> None:
    world = run.world
    run.later()
    held = world.hold(5000, lasts_us=3_600_000_000)
    run.ask("create: held", world.create(held))
    capture = world.capture(held.payment_id, 6000)
    run.ask("capture: more than is held", capture, pb.CapturePaymentResponse)
    run.ask("capture: a part", world.capture(held.payment_id, 4000), pb.CapturePaymentResponse)
    run.ask("capture: another amount", world.capture(held.payment_id, 1), pb.CapturePaymentResponse)
    voided = world.hold(100)
    run.ask("create: held, to be voided", world.create(voided))
    run.ask("cancel: void", world.cancel(voided.payment_id), pb.CancelPaymentResponse)
    ended = world.hold(300, lasts_us=1_000_000)
    run.ask("create: held, to end by itself", world.create(ended))
    run.later(2)
    world.run()


def _refunds(run: Run) -> None:
    world = run.world
    original = run.answers["create: succeeded"].payment
    run.later()
    run.ask("refund: a part", world.refund(original, 500), pb.RefundPaymentResponse)
    run.ask("refund: more than is left", world.refund(original, 751), pb.RefundPaymentResponse)
    world.participants["acquirer-a"].plan_next(DECLINE)
    run.ask("refund: declined", world.refund(original, 750), pb.RefundPaymentResponse)


def _refusals(run: Run) -> None:
    world = run.world
    run.later()
    for name in ("create: within a limit", "create: above a limit"):
        limit = Condition(LIMIT, 600, 1000, int(Reason.ERROR_REASON_DAILY_LIMIT), "day C")
        run.pay(name, 600, counters=(limit,), risk='{"action":"approve"}', risk_id=9)
    refused = world.draft(66, risk='{"action":"decline"}', risk_id=11)
    caller = Caller()
    world.waiting.append(Decline(refused, caller, HutongError(Reason.ERROR_REASON_RISK_DECLINED)))
    run.ask("create: declined by risk rules", caller)


def _batch(run: Run) -> None:
    """Three places: one that succeeds, one that is refused, one that is declined."""
    whole = Asked(CREATE_BATCH, b"")
    batch = BatchWaiter(whole, 3)
    world = run.world
    world.participants["issuer-a"].plan_next(Plan(Behaviour.NORMAL))
    world.participants["issuer-a"].plan_next(DECLINE)
    for at, spends in enumerate(((), (CODE,), ())):
        payment = world.draft(10 + at, spends=spends)
        world.waiting.append(Create(payment, batch.part(at), world.now_us + 60_000_000))
    run.ask("batch", whole.told, pb.BatchCreatePaymentsResponse)


def _queries(run: Run) -> None:
    world = run.world
    shop = Merchant(MERCHANT, "Lotus Tea House", "Hangzhou", "CN", "5812", "CNY", frozenset(), ())
    queries = Queries(world.open_reader, {MERCHANT: shop}, threaded=False)
    lists = Lists(world.open_reader, threaded=False)
    refund = run.answers["refund: a part"].payment.payment_id
    original = run.answers["create: succeeded"].payment.payment_id
    held = run.answers["create: held"].payment.payment_id
    for name, method, payment_id, kind in (
        ("get", GET, original, pb.GetPaymentResponse),
        ("get: a refund", GET, refund, pb.GetPaymentResponse),
        ("get: what was captured", GET, held, pb.GetPaymentResponse),
        ("get: nothing", GET, "00000000-0000-7000-8000-000000000000", pb.GetPaymentResponse),
        ("receipt", RECEIPT, original, pb.GetReceiptResponse),
        ("receipt: of a refund", RECEIPT, refund, pb.GetReceiptResponse),
    ):
        asked = Asked(method, pb.GetPaymentRequest(payment_id=payment_id).SerializeToString())
        queries.submit(asked)
        queries.turn()
        run.answers[name], run.kinds[name] = asked.told, kind
    wanted = pb.PaymentFilter(states=[pb.PAYMENT_STATE_DECLINED])
    listing = Asked(LIST, pb.ListPaymentsRequest(page_size=2, filter=wanted).SerializeToString())
    lists.submit(listing)
    lists.turn()
    run.answers["list"], run.kinds["list"] = listing.told, pb.ListPaymentsResponse
    reader = world.open_reader()
    rows = [row._replace(sequence=number) for number, row in enumerate(reader.events(0, 1000), start=1)]
    reader.close()
    caller = Caller()
    caller.answer(watched(rows, len(rows)))
    run.answers["watch"], run.kinds["watch"] = caller, pb.WatchPaymentsResponse
    queries.close()
    lists.close()


# -- as text -----------------------------------------------------------------------------------------------------------


def answers_text(run: Run) -> str:
    """Every answer: its message as text, and its bytes."""
    return "\n".join(_answer_text(name, run.answers[name], run.kinds[name]) for name in run.answers)


def _answer_text(name: str, caller: Caller, kind: type[Message]) -> str:
    (answer,) = caller.answers
    if isinstance(answer, HutongError):
        # Reason, status and fields are promised, the words are not.
        facts = "".join(f"\n  {key}: {value}" for key, value in sorted(answer.fields.items()))
        return f"[{name}] refused: {answer.name}, gRPC status {answer.status_code.name}{facts}\n"
    message = kind.FromString(answer)
    if isinstance(message, pb.BatchCreatePaymentsResponse):
        for result in message.results:
            if result.HasField("error"):
                result.error.ClearField("message")
        answer = message.SerializeToString()
    lines = text_format.MessageToString(message, as_utf8=True).splitlines()
    return "\n".join([f"[{name}] {kind.DESCRIPTOR.full_name}", *(f"  {line}" for line in lines), *_hex(answer)]) + "\n"


def _hex(content: bytes) -> Iterator[str]:
    digits = content.hex()
    yield f"  {len(content)} bytes"
    for at in range(0, len(digits), 96):
        yield f"  = {digits[at : at + 96]}"


def rows_text(world: World) -> str:
    """Every row of the journal's tables."""
    columns = columns_of(sqlite_statements())
    ranks = {row[0]: at for at, row in enumerate(world.rows("SELECT sequence FROM events ORDER BY sequence"), start=1)}
    parts = []
    for table, order in ORDER.items():
        names = [one.split()[0] for one in columns[table]]
        shown = [name for name in names if name not in UNNUMBERED]
        rows = world.rows(f"SELECT {', '.join(shown)} FROM {table} ORDER BY {order}")
        parts.append(f"[{table}] {' '.join(shown)}")
        parts += [_row_text(shown, row, ranks) for row in rows]
        parts.append("")
    return "\n".join(parts)


def _row_text(names: Sequence[str], row: Sequence[Any], ranks: Mapping[int, int]) -> str:
    return "  " + " ".join(
        _value_text(_rank(value, ranks) if name in SEQUENCES else value) for name, value in zip(names, row, strict=True)
    )


def _rank(sequence: int, ranks: Mapping[int, int]) -> int:
    """How many events there are up to a number."""
    return sum(one <= sequence for one in ranks)


def _value_text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"x'{bytes(value).hex()}'"
    return repr(str(value)) if isinstance(value, str) else str(value)


@contextmanager
def ran(world: World) -> Iterator[Run]:
    """The run on a world, which is checked and closed after it."""
    try:
        run = scripted(world)
        world.check()
        yield run
    finally:
        world.close()
