"""What a leg does at one participant: debit, credit, refund, reversal, inquiry, and at an issuer authorisation and
capture, each once for its leg id.

Follows the contract in `participant.proto`. Recent legs are kept in memory, so that a new leg costs no query: a leg id
above every id that was ever dropped from memory cannot be in the books (ids grow with time, but nothing depends on it).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from hutong.participant.v1 import participant_pb2 as pb
from hutong_contract.legs import Leg
from sandbox.participants.books import Books, Entry

GENERATION_LEGS: Final = 4_096
"""Legs in one generation of the memory; there are two, so a participant remembers 4,096 to 8,192 legs."""
LEG_ID_BYTES: Final = 17

APPROVED: Final = "00"
INVALID_TRANSACTION: Final = "12"
INVALID_AMOUNT: Final = "13"
NO_ACCOUNT: Final = "14"
NOT_FOUND: Final = "25"
MALFORMED: Final = "30"
INSUFFICIENT: Final = "51"
BARRED: Final = "57"
"""A reversal came first: the leg is refused from then on."""
DUPLICATE: Final = "94"

_OK: Final = int(pb.ANSWER_RESULT_APPROVED)
_NO: Final = int(pb.ANSWER_RESULT_DECLINED)
_DEBIT, _CREDIT, _REFUND = int(pb.LEG_KIND_DEBIT), int(pb.LEG_KIND_CREDIT), int(pb.LEG_KIND_REFUND)
_REVERSAL, _INQUIRY = int(pb.LEG_KIND_REVERSAL), int(pb.LEG_KIND_INQUIRY)
_AUTHORISATION, _CAPTURE = int(pb.LEG_KIND_AUTHORISATION), int(pb.LEG_KIND_CAPTURE)
_BEGINS: Final = frozenset({_DEBIT, _CREDIT, _AUTHORISATION})
"""Kinds of legs that name an account and speak of no other leg."""

Verdict = tuple[int, str]
"""An AnswerResult and a response code."""


class Role(enum.Enum):
    """Which side of payments a participant serves: the kind of its original legs, and how they and refunds count."""

    ISSUER = (_DEBIT, -1)
    ACQUIRER = (_CREDIT, +1)

    @property
    def original_kind(self) -> int:
        """The LegKind of the legs that begin something here."""
        return self.value[0]

    @property
    def sign(self) -> int:
        """-1 where that leg takes from the account, +1 where it gives."""
        return self.value[1]


class _Memory:
    """The record of one leg id: its entry, if it arrived, and what has happened to it since."""

    __slots__ = ("captured_by", "entry", "refunded", "reversed")

    def __init__(self, entry: Entry | None) -> None:
        self.entry = entry
        self.reversed = False
        self.refunded = 0
        self.captured_by: bytes | None = None
        """Of an authorisation: the leg that captured it."""


class Ledger:
    """The accounts of one participant, on books that it may share with others."""

    def __init__(self, participant: str, role: Role, books: Books) -> None:
        self.participant = participant
        self.role = role
        self._books = books
        self._original_kind = role.original_kind
        self._sign = role.sign
        self._refundable = {role.original_kind, _CAPTURE}
        self._balances = books.balances(participant)
        self._young: dict[bytes, Entry | _Memory] = {}
        self._old: dict[bytes, Entry | _Memory] = {}
        """Most legs are their entry and nothing more; `_recall` makes a memory of one that is spoken of."""
        self._dropped_to = books.highest_leg()
        self._unseen: set[bytes] = set()
        """Legs of this batch that the books were asked for together and that they do not know."""
        self._rules: dict[int, Callable[[Leg, int], Verdict]] = {
            self._original_kind: self._begin,
            _REFUND: self._refund,
            _REVERSAL: self._reverse,
        }
        if role is Role.ISSUER:
            self._rules |= {_AUTHORISATION: self._authorise, _CAPTURE: self._capture}

    def open_accounts(self, accounts: Iterable[tuple[str, str, int]]) -> None:
        """Opens accounts: (token or merchant id, currency, opening balance in minor units). Accounts that are open
        already stay as they are. Durable on return."""
        self._books.open_accounts(
            self.participant, ((self._books.reference(account), currency, cash) for account, currency, cash in accounts)
        )
        for key, balance in self._books.balances(self.participant).items():
            self._balances.setdefault(key, balance)

    def balance_minor(self, account: str, currency: str) -> int | None:
        """What an account can spend, in minor units, without what is set aside; None if there is no such account."""
        return self._balances.get((self._books.reference(account), currency))

    def foresee(self, legs: Sequence[Leg]) -> None:
        """Asks the books at once for what a batch will ask them one by one: after its restart a gateway inquires about
        all that it had in flight. Where nothing is that old, one comparison or two."""
        dropped_to = self._dropped_to
        if not legs or (legs[0].leg_id > dropped_to and legs[-1].leg_id > dropped_to):
            return
        ids = {leg.original_leg_id for leg in legs} | {leg.leg_id for leg in legs if leg.kind != _INQUIRY}
        wanted = [one for one in ids if one <= dropped_to and one not in self._young and one not in self._old]
        for leg_id, (entry, about) in self._books.find_many(self.participant, wanted).items():
            if self._remember(leg_id, entry, about) is None:
                self._unseen.add(leg_id)

    def apply(self, leg: Leg, now_us: int, refuse: str = "") -> Verdict:
        """Carries out one leg, or declines it with the code `refuse`. Appends to the books and does not commit."""
        kind = leg.kind
        leg_id = leg.leg_id
        if len(leg_id) != LEG_ID_BYTES:
            return _NO, MALFORMED
        if kind == _INQUIRY:
            return self._inquire(leg.original_leg_id)
        known = self._recall(leg_id)
        if known is not None and known.entry is not None:
            entry = known.entry
            return (entry.result, entry.code) if self._same(leg, entry) else (_NO, DUPLICATE)
        if known is not None:
            refuse = BARRED
        rule = self._rules.get(kind)
        if rule is None:
            refuse = INVALID_TRANSACTION
        elif kind != _REVERSAL and leg.amount_minor <= 0:
            refuse = INVALID_AMOUNT
        elif kind not in _BEGINS and len(leg.original_leg_id) != LEG_ID_BYTES:
            refuse = MALFORMED
        if refuse or rule is None:
            reference = self._books.reference(leg.account) if leg.account else ""
            return self._record(leg, now_us, reference, 0, _NO, refuse)
        return rule(leg, now_us)

    def committed(self) -> None:
        """To be called after each commit: lets go of the oldest legs, once there are enough."""
        self._unseen.clear()
        if len(self._young) >= GENERATION_LEGS:
            if self._old:
                self._dropped_to = max(self._dropped_to, max(self._old))
            self._old, self._young = self._young, {}

    def undo(self, lines: Iterable[Entry]) -> None:
        """Restores what uncommitted lines changed, after a failed commit."""
        for line in lines:
            if line.participant == self.participant and (line.effect_minor or line.held_minor):
                self._balances[line.account, line.currency] -= line.effect_minor - line.held_minor
        self._unseen.clear()
        for generation in (self._young, self._old):
            if generation:
                self._dropped_to = max(self._dropped_to, max(generation))
                generation.clear()

    def _begin(self, leg: Leg, now_us: int) -> Verdict:
        """A debit at an issuer or a credit at an acquirer."""
        reference = self._books.reference(leg.account)
        amount = leg.amount_minor
        balance = self._balances.get((reference, leg.currency))
        if balance is None:
            return self._record(leg, now_us, reference, 0, _NO, NO_ACCOUNT)
        if self._sign < 0 and balance < amount:
            return self._record(leg, now_us, reference, 0, _NO, INSUFFICIENT)
        return self._record(leg, now_us, reference, self._sign * amount, _OK, APPROVED)

    def _authorise(self, leg: Leg, now_us: int) -> Verdict:
        """Sets an amount aside."""
        reference = self._books.reference(leg.account)
        balance = self._balances.get((reference, leg.currency))
        if balance is None:
            return self._record(leg, now_us, reference, 0, _NO, NO_ACCOUNT)
        if balance < leg.amount_minor:
            return self._record(leg, now_us, reference, 0, _NO, INSUFFICIENT)
        return self._record(leg, now_us, reference, 0, _OK, APPROVED, held=leg.amount_minor)

    def _capture(self, leg: Leg, now_us: int) -> Verdict:
        """Takes what was set aside, or a part of it, and frees the rest; once."""
        hold = self._recall(leg.original_leg_id)
        entry = hold.entry if hold else None
        if hold is None or entry is None or entry.kind != _AUTHORISATION or not entry.held_minor:
            return self._record(leg, now_us, "", 0, _NO, NOT_FOUND)
        if hold.reversed or hold.captured_by is not None:
            return self._record(leg, now_us, entry.account, 0, _NO, INVALID_TRANSACTION)
        if leg.currency != entry.currency or leg.amount_minor > entry.amount_minor:
            return self._record(leg, now_us, entry.account, 0, _NO, INVALID_AMOUNT)
        hold.captured_by = leg.leg_id
        return self._record(leg, now_us, entry.account, -leg.amount_minor, _OK, APPROVED, held=-entry.held_minor)

    def _refund(self, leg: Leg, now_us: int) -> Verdict:
        """Moves part of an original back, never more in sum than it was."""
        original = self._recall(leg.original_leg_id)
        entry = original.entry if original else None
        if original is None or entry is None or entry.kind not in self._refundable or not entry.effect_minor:
            return self._record(leg, now_us, "", 0, _NO, NOT_FOUND)
        if original.reversed:
            return self._record(leg, now_us, entry.account, 0, _NO, INVALID_TRANSACTION)
        if leg.currency != entry.currency or original.refunded + leg.amount_minor > entry.amount_minor:
            return self._record(leg, now_us, entry.account, 0, _NO, INVALID_AMOUNT)
        original.refunded += leg.amount_minor
        return self._record(leg, now_us, entry.account, -self._sign * leg.amount_minor, _OK, APPROVED)

    def _reverse(self, leg: Leg, now_us: int) -> Verdict:
        """Undoes what is left of the original, or bars it if it was never seen. Approved, unless the original is
        itself a reversal: undoing that would do the payment again."""
        original_id = leg.original_leg_id
        original = self._recall(original_id)
        if original is None:
            original = self._young[original_id] = _Memory(None)
        entry = original.entry
        effect, held, reference = 0, 0, ""
        if entry is not None and entry.kind == _REVERSAL:
            return self._record(leg, now_us, entry.account, 0, _NO, INVALID_TRANSACTION)
        if entry is not None:
            reference = entry.account
            if not original.reversed and entry.effect_minor:
                effect = -entry.effect_minor + (self._sign * original.refunded)
            if not original.reversed and entry.held_minor > 0:
                effect, held = self._release(original, entry)
        if effect and entry is not None and entry.kind == _REFUND:
            self._give_back(entry)
        original.reversed = True
        return self._record(leg, now_us, reference, effect, _OK, APPROVED, entry.currency if entry else None, held)

    def _release(self, hold: _Memory, entry: Entry) -> tuple[int, int]:
        """The end of an authorisation: (effect, change of what is set aside). What it has captured is undone too."""
        capture = self._recall(hold.captured_by) if hold.captured_by is not None else None
        if capture is None or capture.entry is None:
            return 0, -entry.held_minor
        if capture.reversed:
            return 0, 0
        capture.reversed = True
        return -capture.entry.effect_minor + self._sign * capture.refunded, 0

    def _give_back(self, refund: Entry) -> None:
        """A reversed refund no longer counts against its original."""
        original = self._recall(bytes(refund.original or b""))
        if original is not None:
            original.refunded -= refund.amount_minor

    def _inquire(self, original_id: bytes) -> Verdict:
        """The state of a leg; changes nothing."""
        original = self._recall(original_id)
        if original is None:
            return int(pb.ANSWER_RESULT_NOT_FOUND), NOT_FOUND
        if original.reversed:
            return int(pb.ANSWER_RESULT_REVERSED), APPROVED
        assert original.entry is not None, "only a reversal is remembered without its original"
        return original.entry.result, original.entry.code

    def _record(
        self,
        leg: Leg,
        now_us: int,
        reference: str,
        effect: int,
        result: int,
        code: str,
        currency: str | None = None,
        held: int = 0,
    ) -> Verdict:
        """Writes the line, moves the balance, and remembers the leg."""
        leg_id = leg.leg_id
        currency = currency or leg.currency
        entry = Entry(
            bytearray(leg_id), self.participant, leg.kind.real, bytearray(leg.original_leg_id), reference, currency,
            leg.terminal_id, leg.amount_minor, effect, held, result, code, now_us,
        )  # fmt: skip
        self._books.append(entry)
        if effect or held:
            self._balances[reference, currency] += effect - held
        memory = self._young.get(leg_id) or self._old.get(leg_id)
        if isinstance(memory, _Memory):
            memory.entry = entry
        else:
            self._young[leg_id] = entry
        return result, code

    def _same(self, leg: Leg, entry: Entry) -> bool:
        """Whether a leg says again what its entry says. Of a reversal or refund the original says the account."""
        return (
            leg.kind == entry.kind
            and leg.original_leg_id == (entry.original or b"")
            and leg.amount_minor == entry.amount_minor
            and (leg.currency or entry.currency) == entry.currency
            and (entry.kind not in _BEGINS or self._books.reference(leg.account) == entry.account)
            and leg.terminal_id == entry.terminal
        )

    def _recall(self, leg_id: bytes) -> _Memory | None:
        """The record of a leg id, from memory or the books; None if no leg had or named it."""
        generation = self._young
        memory = generation.get(leg_id)
        if memory is None:
            generation = self._old
            memory = generation.get(leg_id)
        if isinstance(memory, Entry):
            memory = generation[leg_id] = _Memory(memory)
        if memory is not None or leg_id > self._dropped_to or leg_id in self._unseen:
            return memory
        return self._remember(leg_id, *self._books.find(self.participant, leg_id))

    def _remember(self, leg_id: bytes, entry: Entry | None, about: Sequence[Entry]) -> _Memory | None:
        """Loads the record of a leg id from the books; None if they have nothing."""
        reversals = [line for line in about if line.kind == _REVERSAL and line.result == _OK]
        if entry is None and not reversals:
            return None
        memory = self._young[leg_id] = _Memory(entry)
        memory.reversed = bool(reversals)
        memory.refunded = sum(line.amount_minor for line in about if self._counts(line))
        captures = [line for line in about if line.kind == _CAPTURE and line.result == _OK]
        memory.captured_by = bytes(captures[0].leg_id) if captures else None
        if entry is not None and entry.kind == _CAPTURE and entry.result == _OK and entry.original:
            _, of_hold = self._books.find(self.participant, bytes(entry.original))
            memory.reversed |= any(line.kind == _REVERSAL and line.result == _OK for line in of_hold)
        return memory

    def _counts(self, line: Entry) -> bool:
        """Whether a line is a refund that was done and not reversed."""
        if line.kind != _REFUND or line.result != _OK:
            return False
        known = self._recall(bytes(line.leg_id))
        return known is not None and not known.reversed
