"""A gateway's engine with its intake and risk rules, for tests: real core, journal, books; a clock that tests turn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway import admission
from gateway.calls import CREATE, CREATE_BATCH, payments_in
from gateway.directory import parse
from gateway.engine.clock import Clock
from gateway.engine.core import Core
from gateway.engine.loop import Engine
from gateway.engine.ports import Journal
from gateway.intake import PaymentIntake
from gateway.journal.conservation import examine_database
from gateway.journal.refusals import DecisionRow
from gateway.journal.sqlite import SqliteJournal
from gateway.journal.sqlite_connection import connect
from gateway.journal.sqlite_reader import SqliteReader
from gateway.links.loopback import LoopbackLink
from gateway.risk.judge import Judge
from gateway.risk.rule_file import parse_rules
from gateway.routing import Router
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError
from hutong_contract.secret import Secret
from sandbox.participants.books import Books
from sandbox.participants.simulated import Participants, SimulatedAcquirer, SimulatedIssuer
from tests.gateway.engine.world import TIMING
from tokenization.interface import KeyUse, PayerKeyKind, Resolution

START_US = 1_790_000_000_000_000
"""2026-09-21 14:13:20 UTC, 22:13:20 of the same day in UTC+8."""
MIDNIGHT_US = 1_790_006_400_000_000
"""The midnight of UTC+8 that follows."""
HEAD = 'version = 1\nzone = "UTC+8"\n'
OPENING_MINOR = 100_000_000
ACCOUNTS = 20


class TurnedClock(Clock):
    def __init__(self) -> None:
        super().__init__()
        self.us = START_US

    def now_us(self) -> int:
        return self.us


class Call:
    """A request and its one answer."""

    def __init__(self, method: int, payload: bytes, caller: str) -> None:
        self.method, self.payload, self.caller = method, payload, caller
        self.time_left_us: int | None = None
        self.told: list[bytes | HutongError] = []

    def answer(self, payload: bytes) -> None:
        assert not self.told, "answered twice"
        self.told.append(payload)

    def fail(self, error: HutongError) -> None:
        assert not self.told, "answered twice"
        self.told.append(error)

    @property
    def error(self) -> HutongError:
        (told,) = self.told
        assert isinstance(told, HutongError), pb.CreatePaymentResponse.FromString(told)
        return told

    @property
    def payment(self) -> pb.Payment:
        (told,) = self.told
        assert isinstance(told, bytes), told
        return pb.CreatePaymentResponse.FromString(told).payment

    @property
    def outcome(self) -> str:
        (told,) = self.told
        if isinstance(told, HutongError):
            return told.name
        return pb.PaymentState.Name(self.payment.state).removeprefix("PAYMENT_STATE_")


class Keys:
    """Where payers' keys lead: the digits of a code begin with its account's number, others with a kind's name."""

    def __init__(self) -> None:
        self.changes: dict[str, Any] = {}
        """Of the resolutions that follow."""
        self.refusal: HutongError | None = None
        """Of all keys from now on."""

    def resolve(self, uses: Sequence[KeyUse], now_us: int) -> list[Resolution | HutongError]:
        return [self.refusal or self._resolve(use, now_us) for use in uses]

    def _resolve(self, use: KeyUse, now_us: int) -> Resolution:
        value = use.value.reveal()
        code = use.kind is PayerKeyKind.PAYMENT_CODE
        account = int(value[2:5]) if code else int(value)
        found = Resolution(
            issuer_id="issuer-a",
            token=Secret(f"account-{account}"),
            token_ref=account.to_bytes(16, "big"),
            key_ref=(1000 + account).to_bytes(16, "big"),
            last_four="0000",
            spends=(value.encode()[-16:],) if code else (),
            made_us=now_us if code else 0,
        )
        return found._replace(**self.changes)


class Gate:
    """One gateway."""

    def __init__(self, folder: Path, rules: str, *, journal: Journal | None = None, **intake_options: Any) -> None:
        self.path = folder / "gateway.db"
        self.clock = TurnedClock()
        self.keys = Keys()
        self.judge = Judge(parse_rules((HEAD + rules).encode(), "rules"))
        self.books = Books(folder)
        issuer = SimulatedIssuer("issuer-a", self.books, magic_amounts=False)
        issuer.ledger.open_accounts([(f"account-{number}", "CNY", OPENING_MINOR) for number in range(ACCOUNTS)])
        acquirer = SimulatedAcquirer("acquirer-a", self.books, magic_amounts=False)
        acquirer.ledger.open_accounts([("m1", "CNY", 0), ("m2", "CNY", 0)])
        self.link = LoopbackLink(Participants(self.books, [issuer, acquirer]))
        self.journal = journal or SqliteJournal(self.path)
        self.core = Core(TIMING)
        directory = parse(
            {
                "participants": [{"id": "issuer-a", "role": "issuer"}, {"id": "acquirer-a", "role": "acquirer"}],
                "merchants": [
                    {"id": name, "name": name, "acquirers": [{"id": "acquirer-a"}], "terminals": ["t1", "t2"]}
                    for name in ("m1", "m2")
                ],
            }
        )
        router = Router(directory, lambda _: True)
        intake = PaymentIntake(router, self.keys, self.journal, bytes(32), judge=self.judge, **intake_options)
        self.engine = Engine(
            self.core,
            self.journal,
            self.link,
            intake,
            clock=self.clock,
            on_refusal=self.judge.not_taken,
        )
        self._waiting = admission.Gate(self.engine.inbox)
        self.engine.add_source(self._waiting)
        self._number = 0

    # -- asking ----------------------------------------------------------------------------------------------

    def request(self, amount: int = 1000, *, account: int = 1, key: str = "", **facts: Any) -> pb.CreatePaymentRequest:
        """A request to pay with a fresh payment code, or with what `facts` say."""
        self._number += 1
        code = facts.get("code") or f"66{account:03d}{self._number:014d}"
        payer = pb.RoutingKey(payment_code=code)
        if facts.get("token"):
            payer = pb.RoutingKey(token={"token": str(account)})  # type: ignore[arg-type]
        return pb.CreatePaymentRequest(
            idempotency_key=key or f"key-{self._number}",
            payer=payer,
            payee=pb.RoutingKey(
                merchant=pb.MerchantKey(merchant_id=facts.get("merchant", "m1"), terminal_id=facts.get("terminal", ""))
            ),
            amount_minor=amount,
            currency="CNY",
        )

    def ask(self, amount: int = 1000, *, caller: str = "shop", **facts: Any) -> Call:
        """A request arrives; nobody looks at it yet."""
        call = Call(CREATE, self.request(amount, **facts).SerializeToString(), caller)
        return self.submit(call)

    def batch(self, requests: Sequence[pb.CreatePaymentRequest]) -> Call:
        call = Call(CREATE_BATCH, pb.BatchCreatePaymentsRequest(requests=requests).SerializeToString(), "shop")
        return self.submit(call)

    def submit(self, call: Call) -> Call:
        """A call arrives at the front."""
        assert self._waiting.offer([call], payments_in(call))
        return call

    def pay(self, amount: int = 1000, **facts: Any) -> Call:
        """Pays and waits for the end."""
        call = self.ask(amount, **facts)
        self.run()
        return call

    def run(self) -> None:
        """Ticks until nothing is to be done."""
        while self.engine.tick() or self.core.book:
            pass

    # -- looking ---------------------------------------------------------------------------------------------

    @property
    def decisions(self) -> list[DecisionRow]:
        reader = SqliteReader(self.path)
        try:
            return reader.decisions(None, 100)
        finally:
            reader.close()

    def close(self) -> None:
        """Checks that nothing was lost, and ends."""
        self.journal.close()
        if self.path.exists():
            database = connect(self.path, read_only=True)
            assert examine_database(database).findings == []
            database.close()
        self.books.close()
