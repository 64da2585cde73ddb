"""A gateway's heart for tests: the real core, journal, books and participants, with a clock that tests turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.engine.clock import PaymentIds
from gateway.engine.core import Core
from gateway.engine.model import Answered, Cancel, Capture, Create, EngineEvent, Expire, Kind, LegOut, LegState, Payment
from gateway.engine.ports import Journal
from gateway.engine.states import Event, State
from gateway.engine.transitions import Timing
from gateway.journal.conservation import compare, compare_holds
from gateway.journal.conservation import examine as examine_sqlite
from gateway.journal.interface import Reader
from gateway.journal.report import Report
from gateway.journal.sqlite import SqliteJournal
from gateway.journal.sqlite_reader import SqliteReader
from gateway.links.loopback import LoopbackLink
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError, Reason
from hutong_contract.secret import Secret
from sandbox.participants.books import Books, holds, totals
from sandbox.participants.simulated import Participants, SimulatedAcquirer, SimulatedIssuer

START_US = 1_790_000_000_000_000
TOKEN = "6212345678901234"
MERCHANT = "m1"
OPENING_MINOR = 1_000_000
TIMING = Timing(leg_timeout_us=1_000_000, inquiry_us=500_000, inquiries_max=3, reversal_us=500_000)


@dataclass
class Caller:
    """Keeps what it was answered; fails the test if it is answered twice."""

    answers: list[bytes | HutongError] = field(default_factory=list)

    def answer(self, payload: bytes) -> None:
        assert not self.answers, "answered twice"
        self.answers.append(payload)

    def fail(self, error: HutongError) -> None:
        assert not self.answers, "answered twice"
        self.answers.append(error)

    @property
    def answered(self) -> bool:
        return bool(self.answers)

    @property
    def body(self) -> bytes:
        (answer,) = self.answers
        assert isinstance(answer, bytes), answer
        return answer

    @property
    def payment(self) -> pb.Payment:
        return pb.CreatePaymentResponse.FromString(self.body).payment

    @property
    def error(self) -> HutongError:
        (answer,) = self.answers
        assert isinstance(answer, HutongError), answer
        return answer

    @property
    def state(self) -> State:
        return State(self.payment.state)


class World:
    """One engine on a folder. `crash` forgets memory and begins again from the journal, as a restart does."""

    def __init__(
        self,
        folder: Path,
        *,
        timing: Timing = TIMING,
        open_journal: Callable[[], Journal] | None = None,
        open_reader: Callable[[], Reader] | None = None,
        examine: Callable[[], Report] | None = None,
    ) -> None:
        self.folder = folder
        self.open_journal = open_journal or (lambda: SqliteJournal(folder / "gateway.db"))
        self.open_reader = open_reader or (lambda: SqliteReader(folder / "gateway.db"))
        self.examine = examine or (lambda: examine_sqlite(folder / "gateway.db"))
        """The conservation check of the journal."""
        self.timing = timing
        self.now_us = START_US
        self.ids = PaymentIds()
        self.transitions: set[tuple[State, Event]] = set()
        self.anomalies: dict[str, int] = {}
        self.lost: Callable[[LegOut], bool] = lambda _: False
        self.books = Books(folder)
        issuers = [SimulatedIssuer(name, self.books, magic_amounts=False) for name in ("issuer-a", "issuer-b")]
        acquirers = [SimulatedAcquirer(name, self.books, magic_amounts=False) for name in ("acquirer-a", "acquirer-b")]
        for issuer in issuers:
            issuer.ledger.open_accounts([(TOKEN, "CNY", OPENING_MINOR)])
        for acquirer in acquirers:
            acquirer.ledger.open_accounts([(MERCHANT, "CNY", 0)])
        self.participants = Participants(self.books, [*issuers, *acquirers])
        self._open()

    def _open(self) -> None:
        self.journal = self.open_journal()
        self.link = LoopbackLink(self.participants)
        self.core = Core(self.timing, trace=True)
        self.waiting: list[EngineEvent] = []

    def crash(self) -> None:
        """kill -9: memory and messages under way are gone, what is on disk stays."""
        # A journal on a server keeps its lease when the process dies.
        getattr(self.journal, "disconnect", self.journal.close)()
        self._open()
        self.core.load(self.journal.load_open())

    def close(self) -> None:
        self.journal.close()
        self.books.close()

    # -- requests ------------------------------------------------------------------------------------------

    def draft(self, amount_minor: int = 1000, key: str = "", **changes: object) -> Payment:
        payment_id = self.ids.next(self.now_us)
        payment = Payment(
            payment_id=payment_id,
            kind=Kind.PAYMENT,
            amount_minor=amount_minor,
            currency="CNY",
            debtor="issuer-a",
            creditors=("acquirer-a", "acquirer-b"),
            created_us=self.now_us,
            deadline_us=self.now_us + 30_000_000,
            idempotency=key.encode().ljust(16) if key else payment_id,
            fingerprint=str(amount_minor).encode().ljust(16),
            account=Secret(TOKEN),
            merchant_id=MERCHANT,
            spend_reason=Reason.ERROR_REASON_CODE_SPENT,
        )
        for name, value in changes.items():
            setattr(payment, name, value)
        return payment

    def hold(self, amount_minor: int = 1000, lasts_us: int = 86_400_000_000, **changes: object) -> Payment:
        """A payment whose funds are to be held."""
        until_us = self.now_us + lasts_us
        return self.draft(amount_minor, authorised_minor=amount_minor, hold_until_us=until_us, **changes)  # type: ignore[arg-type]

    def create(self, payment: Payment | None = None, *, reply_in_us: int = 3_600_000_000) -> Caller:
        caller = Caller()
        self.waiting.append(Create(payment or self.draft(), caller, self.now_us + reply_in_us))
        return caller

    def refund(self, original: pb.Payment, amount_minor: int, key: str = "") -> Caller:
        original_id = bytes.fromhex(original.payment_id.replace("-", ""))
        payment = self.draft(
            amount_minor,
            key,
            kind=Kind.REFUND,
            debtor=original.acquirer_id,
            creditors=(original.issuer_id,),
            account=None,
            original_id=original_id,
            debit_original=original_id + b"\x02",
            credit_original=original_id + b"\x01",
        )
        return self.create(payment)

    def cancel(self, payment_id: bytes) -> Caller:
        caller = Caller()
        self.waiting.append(Cancel(payment_id, caller))
        return caller

    def capture(self, payment_id: bytes, amount_minor: int = 0, *, reply_in_us: int = 3_600_000_000) -> Caller:
        caller = Caller()
        self.waiting.append(Capture(payment_id, amount_minor, caller, self.now_us + reply_in_us))
        return caller

    def answer(self, participant: str, leg_id: bytes, result: int, code: str = "00") -> None:
        """An answer out of nowhere."""
        self.waiting.append(Answered(participant, leg_id, result, code))

    # -- time ----------------------------------------------------------------------------------------------

    def tick(self) -> None:
        events = self.waiting + self.link.poll(self.now_us)
        self.waiting = []
        events += [Expire(payment_id) for payment_id in self.journal.ended_holds(self.now_us, 100)]
        self.core.load(self.journal.claim(self.core.missing(events)))
        out = self.core.step(events, self.now_us)
        self.transitions.update(out.transitions)
        for what, count in out.anomalies.items():
            self.anomalies[what] = self.anomalies.get(what, 0) + count
        verdicts = self.journal.commit(out.writes) if out.writes else []
        effects = self.core.settle(out, verdicts)
        for waiter, body in effects.answers:
            waiter.answer(body)
        for waiter, error in effects.errors:
            waiter.fail(error)
        legs = [leg for leg in effects.legs if not self.lost(leg)]
        self.waiting.extend(self.link.send(legs, self.now_us))

    def run(self, *, seconds: float = 600.0) -> None:
        """Ticks until nothing is in flight, jumping over idle time; stops after virtual `seconds`."""
        end_us = self.now_us + int(seconds * 1e6)
        while self.now_us <= end_us:
            self.tick()
            if self.waiting:
                continue
            dues = [due for due in (self.core.next_due_us(), self.link.next_due_us()) if due is not None]
            if not dues:
                return
            self.now_us = max(self.now_us + 1, min(dues)) if min(dues) > self.now_us else self.now_us + 1

    # -- what must hold ----------------------------------------------------------------------------------------

    def check(self, *, settled: bool = True) -> None:
        """The journal is conserved, and the participants' books agree with it, payment by payment."""
        report = self.examine()
        if settled:
            assert not self.core.book, self.core.book
            assert report.in_flight == 0
            compare(report, totals(self.books.path))
            compare_holds(report, holds(self.books.path))
        assert report.findings == []

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a query with `?` for its values, as committed."""
        reader = self.open_reader()
        try:
            return reader.rows(query, values)
        finally:
            reader.close()

    def balance(self, participant: str, account: str) -> int:
        balance = self.participants[participant].ledger.balance_minor(account, "CNY")
        assert balance is not None
        return balance

    def legs(self, payment: pb.Payment) -> Sequence[tuple[str, str, LegState]]:
        reader = self.open_reader()
        try:
            stored = reader.payment(bytes.fromhex(payment.payment_id.replace("-", "")))
            assert stored is not None
            return [(leg.kind.name, leg.participant, leg.state) for leg in stored.legs]
        finally:
            reader.close()
