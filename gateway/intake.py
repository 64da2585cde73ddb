"""Turns a caller's request into an event of the engine: validates it, resolves both keys, chooses a route. Answers
refusals itself.

Works on batches, on the engine's thread, before the tick; nothing here is durable. Before a request is refused, its
idempotency key is looked up: if it repeats a request that was admitted, that answer is given, because a code may have
expired in the meantime.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from facepay.interface import FaceMatch, FaceResolver, FaceUse
from gateway import keys, requests
from gateway.admission import overloaded
from gateway.calls import CANCEL, CAPTURE, CREATE, CREATE_BATCH, REFUND, BatchWaiter
from gateway.directory import Merchant
from gateway.engine.answer import response
from gateway.engine.clock import PaymentIds
from gateway.engine.inbox import Inbox
from gateway.engine.model import Cancel, Capture, Create, Decline, EngineEvent, Join, Kind, Payment, Waiter
from gateway.engine.ports import Call, Journal, JournalFencedError, JournalUnavailableError
from gateway.engine.states import RESTING
from gateway.keys import Payee, Payees
from gateway.refunds import refund_of
from gateway.risk.judge import Judge
from gateway.risk.rule_file import default_rules
from gateway.routing import Router
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError, Reason
from hutong_contract.incidents import incident
from hutong_contract.limits import PAYMENTS_MAX, REPLY_MAX_US
from tokenization.interface import KeyUse, Resolution, TokenResolver

log = logging.getLogger(__name__)

DECLINES_PER_TICK_MAX: Final = 1_000
"""Payments that risk rules decline in one tick, each a row of the journal. Further ones are told to try again."""
RETURNED_PER_TICK_MAX: Final = 4096
"""Most payments that are taken back from workers in one tick."""
CURRENCIES_SHOWN_MAX: Final = 20
"""Most currencies named in an error."""

_PAYMENT: Final = Kind.PAYMENT


@dataclass(slots=True)
class Draft:
    """A payment that is being prepared."""

    request: pb.CreatePaymentRequest
    waiter: Waiter
    caller: str
    reply_by_us: int
    idempotency: bytes = b""
    fingerprint: bytes = b""
    deadline_us: int = 0
    hold_until_us: int = 0
    amount_minor: int = 0
    currency: str = ""
    payee: Payee | None = None
    face: FaceMatch | HutongError | None = None
    """The face service's answer; set when the draft comes back from it."""
    payment: Payment | None = None
    """The payment that risk rules declined, to be stored with their decision."""

    def fail(self, error: HutongError) -> None:
        """Answers the caller with an error."""
        self.waiter.fail(error)


class PaymentIntake:
    """Turns calls into events of the engine: validates them, resolves both keys, judges risk and chooses a route."""

    def __init__(
        self,
        router: Router,
        tokens: TokenResolver,
        journal: Journal,
        fingerprint_key: bytes,
        *,
        faces: FaceResolver | None = None,
        workers: Executor | None = None,
        wake: Callable[[], None] = lambda: None,
        ids: PaymentIds | None = None,
        judge: Judge | None = None,
    ) -> None:
        """`faces` runs on `workers`; `wake` wakes the engine when they have finished something. `judge` has the risk
        rules; without it the package's own are in force."""
        self._router = router
        self._tokens = tokens
        self._journal = journal
        self._key = fingerprint_key
        self._faces = faces
        self._workers = workers
        self._wake = wake
        self._returned: Inbox[Draft] = Inbox()
        """Drafts that workers have finished."""
        self._in_hand: list[Draft] = []
        """Those of them that `prepare` is working on."""
        self._ids = ids or PaymentIds()
        self._judge = judge or Judge(default_rules())
        self._payees = Payees(router.directory)

    @property
    def waiting(self) -> bool:
        return bool(len(self._returned))

    def refuse(self, error: HutongError) -> None:
        _fail(self._returned.take(len(self._returned)), error)

    def end(self, error: HutongError) -> None:
        """Also answers those that `prepare` was working on when a defect ended the engine."""
        _fail(self._in_hand, error)
        self._returned.end(lambda drafts: _fail(drafts, error))

    def prepare(self, calls: Sequence[Call], now_us: int, room: int) -> list[EngineEvent]:
        self._in_hand = self._returned.take(RETURNED_PER_TICK_MAX)
        events = self._prepare(calls, list(self._in_hand), now_us, room)
        self._in_hand = []
        return events

    def _prepare(self, calls: Sequence[Call], drafts: list[Draft], now_us: int, room: int) -> list[EngineEvent]:
        """`drafts`: those that came back from workers; the payments that calls ask for are added."""
        events: list[EngineEvent] = []
        refunds: list[tuple[pb.RefundPaymentRequest, Call]] = []
        self._judge.begin()
        for call in calls:
            try:
                if call.method == CANCEL:
                    request = pb.CancelPaymentRequest.FromString(call.payload)
                    events.append(Cancel(requests.payment_id_bytes(request.payment_id), call))
                elif room <= 0:
                    call.fail(overloaded())
                elif call.method == CAPTURE:
                    events.append(self._capture(call, now_us))
                    room -= 1
                elif call.method == REFUND:
                    refunds.append((pb.RefundPaymentRequest.FromString(call.payload), call))
                    room -= 1
                else:
                    room -= self._open(call, drafts, now_us, room)
            except DecodeError:
                call.fail(HutongError(Reason.ERROR_REASON_MESSAGE_MALFORMED))
            except HutongError as error:
                call.fail(error)
            except Exception as error:  # noqa: BLE001 - a defect that one request meets must not end the engine
                call.fail(incident(log, "the intake of a call", error))
        if drafts:
            self._create(drafts, events, now_us)
        if refunds:
            self._refund(refunds, events, now_us)
        return events

    def _open(self, call: Call, drafts: list[Draft], now_us: int, room: int) -> int:
        """Parses a CreatePayment or a batch of them; returns how many payments it asks for."""
        reply_by_us = requests.reply_by(call, now_us)
        if call.method == CREATE:
            request = pb.CreatePaymentRequest.FromString(call.payload)
            drafts.append(Draft(request, call, call.caller, reply_by_us))
            return 1
        assert call.method == CREATE_BATCH, "fronts pass no other method to the engine"
        asked = pb.BatchCreatePaymentsRequest.FromString(call.payload).requests
        if not asked:
            raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field="requests")
        if len(asked) > PAYMENTS_MAX:
            raise HutongError(Reason.ERROR_REASON_BATCH_TOO_LARGE, size=str(len(asked)), most=str(PAYMENTS_MAX))
        if len(asked) > room:
            raise overloaded()
        batch = BatchWaiter(call, len(asked))
        drafts.extend(Draft(one, batch.part(i), call.caller, reply_by_us) for i, one in enumerate(asked))
        return len(asked)

    def _capture(self, call: Call, now_us: int) -> Capture:
        request = pb.CapturePaymentRequest.FromString(call.payload)
        payment_id = requests.payment_id_bytes(request.payment_id)
        if request.amount_minor < 0:
            raise HutongError(Reason.ERROR_REASON_AMOUNT_NOT_POSITIVE)
        return Capture(payment_id, request.amount_minor, call, requests.reply_by(call, now_us))

    # -- payments --------------------------------------------------------------------------------------

    def _create(self, drafts: list[Draft], events: list[EngineEvent], now_us: int) -> None:
        refused: list[tuple[Draft, HutongError]] = []
        uses: list[KeyUse] = []
        users: list[Draft] = []
        faces: list[Draft] = []
        for draft in drafts:
            try:
                if isinstance(draft.face, HutongError):
                    raise draft.face
                if draft.face is None:
                    self._validate(draft, now_us)
                if draft.face is None and draft.request.payer.WhichOneof("key") == "face":
                    faces.append(draft)
                else:
                    uses.append(self._key_use(draft))
                    users.append(draft)
            except HutongError as error:
                refused.append((draft, error))
            except Exception as error:  # noqa: BLE001 - as above
                refused.append((draft, incident(log, "the intake of a payment", error)))
        resolved = self._resolve(uses, now_us) if uses else []
        for draft, use, resolution in zip(users, uses, resolved, strict=True):
            try:
                if isinstance(resolution, HutongError):
                    raise resolution
                events.append(self._admit(draft, use, resolution, now_us))
            except HutongError as error:
                refused.append((draft, error))
            except Exception as error:  # noqa: BLE001 - as above; nothing of it was decided
                refused.append((draft, incident(log, "the admission of a payment", error)))
        if faces:
            refused.extend(self._look_at_faces(faces, now_us))
        if refused:
            self._refuse(refused, events)

    def _resolve(self, uses: list[KeyUse], now_us: int) -> Sequence[Resolution | HutongError]:
        """The token service's answer for each key, or its failure for all of them."""
        try:
            return self._tokens.resolve(uses, now_us)
        except Exception as error:  # noqa: BLE001 - as above
            return [incident(log, "the resolution of keys", error)] * len(uses)

    def _validate(self, draft: Draft, now_us: int) -> None:
        request = draft.request
        requests.check_key(request.idempotency_key)
        draft.idempotency = requests.key_hash(draft.caller, request.idempotency_key)
        if not request.HasField("payer"):
            raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field="payer")
        if not request.HasField("payee"):
            raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field="payee")
        payee_bytes = request.payee.SerializeToString()
        draft.fingerprint = requests.fingerprint(
            self._key,
            request.payer.SerializeToString(),
            payee_bytes,
            request.amount_minor,
            request.currency,
            request.reference,
            request.hold.SerializeToString() if request.HasField("hold") else None,
        )
        requests.check_reference(request.reference)
        draft.hold_until_us = requests.hold_until(request, now_us)
        draft.deadline_us = requests.deadline(request, now_us)
        if draft.reply_by_us <= now_us:
            raise HutongError(Reason.ERROR_REASON_DEADLINE_PAST)
        draft.payee = payee = self._payees.find(request.payee, payee_bytes, now_us)
        draft.amount_minor, draft.currency = requests.amount(
            request, payee.amount_minor, payee.currency, payee.least_minor, payee.fee_minor
        )

    def _key_use(self, draft: Draft) -> KeyUse:
        assert draft.payee is not None, "validated before"
        face = draft.face if isinstance(draft.face, FaceMatch) else None
        return keys.key_use(draft.request.payer, draft.payee, draft.amount_minor, draft.currency, face)

    def _admit(self, draft: Draft, use: KeyUse, resolution: Resolution, now_us: int) -> Create:
        payee = draft.payee
        assert payee is not None, "validated before"
        route = self._router.route(payee.merchant, draft.currency, now_us)
        if not route.acquirers:
            raise self._no_acquirer(payee.merchant, draft.currency)
        issuer = self._router.directory.participants.get(resolution.issuer_id)
        if issuer is None:
            raise HutongError(Reason.ERROR_REASON_NO_ROUTE, issuer_id=resolution.issuer_id)
        if issuer.currencies and draft.currency not in issuer.currencies:
            raise _not_served(draft.currency, issuer.currencies, issuer_id=issuer.id)
        spends = resolution.spends
        if isinstance(draft.face, FaceMatch):
            spends = (*spends, draft.face.capture_id)
        payment = Payment(
            payment_id=self._ids.next(now_us),
            kind=_PAYMENT,
            amount_minor=draft.amount_minor,
            currency=draft.currency,
            debtor=resolution.issuer_id,
            creditors=route.acquirers,
            created_us=now_us,
            deadline_us=draft.deadline_us,
            caller=draft.caller,
            idempotency=draft.idempotency,
            fingerprint=draft.fingerprint,
            account=resolution.token,
            account_ref=resolution.token_ref,
            key_ref=resolution.key_ref,
            last_four=resolution.last_four,
            payer_key=keys.KEY_KINDS[use.kind],
            payee_key=payee.kind,
            merchant_id=payee.merchant.id,
            terminal_id=payee.terminal_id,
            reference=draft.request.reference or payee.reference,
            route=route.explanation,
            route_id=route.route_id,
            spends=spends,
            order=payee.order,
            spend_reason=resolution.spend_reason,
            counters=resolution.counters,
        )
        if draft.hold_until_us:
            payment.authorised_minor, payment.hold_until_us = payment.amount_minor, draft.hold_until_us
        refusal = self._judge.judge(payment, use, resolution, payee, now_us)
        if refusal is not None:
            draft.payment = payment
            raise refusal
        return Create(payment, draft.waiter, min(draft.reply_by_us, draft.deadline_us + REPLY_MAX_US))

    def _no_acquirer(self, merchant: Merchant, currency: str) -> HutongError:
        """The error if no acquirer can serve a merchant: permanent, with what to change, or temporary."""
        if not merchant.acquirers:
            return HutongError(Reason.ERROR_REASON_NO_ROUTE, merchant_id=merchant.id)
        served = self._router.currencies(merchant)
        if served and currency not in served:
            return _not_served(currency, served, merchant_id=merchant.id)
        return HutongError(Reason.ERROR_REASON_ACQUIRER_UNAVAILABLE, merchant_id=merchant.id)

    # -- faces: searched and checked on worker threads ---------------------------------------------------

    def _look_at_faces(self, drafts: list[Draft], now_us: int) -> list[tuple[Draft, HutongError]]:
        faces, workers = self._faces, self._workers
        if faces is None or workers is None:  # this gateway has none, so asking again does not help
            return [(draft, HutongError(Reason.ERROR_REASON_NO_ROUTE, key="face")) for draft in drafts]
        workers.submit(self._resolve_faces, faces, drafts, now_us)
        return []

    def _resolve_faces(self, faces: FaceResolver, drafts: list[Draft], now_us: int) -> None:
        """Runs on a worker thread. Every draft then waits for the next `prepare`, with a match or an error."""
        try:
            matches = faces.resolve([_face_use(draft) for draft in drafts], now_us)
            for draft, match in zip(drafts, matches, strict=True):
                draft.face = match
        except Exception:  # noqa: BLE001 - whatever the face service does, its callers get an answer
            for draft in drafts:
                draft.face = HutongError(Reason.ERROR_REASON_FACE_UNAVAILABLE)
        self._returned.put(drafts)
        self._wake()

    # -- refunds ---------------------------------------------------------------------------------------

    def _refund(
        self, refunds: list[tuple[pb.RefundPaymentRequest, Call]], events: list[EngineEvent], now_us: int
    ) -> None:
        refused: list[tuple[Draft, HutongError]] = []
        drafts: list[tuple[pb.RefundPaymentRequest, Draft, bytes]] = []
        for request, call in refunds:
            try:
                requests.check_key(request.idempotency_key)
                original_id = requests.payment_id_bytes(request.payment_id)
                requests.check_reference(request.reference)
            except HutongError as error:
                call.fail(error)
                continue
            draft = Draft(pb.CreatePaymentRequest(), call, call.caller, requests.reply_by(call, now_us))
            draft.idempotency = requests.key_hash(call.caller, request.idempotency_key)
            draft.fingerprint = requests.fingerprint(
                self._key, original_id, b"refund", request.amount_minor, "", request.reference
            )
            drafts.append((request, draft, original_id))
        wanted = sorted({original_id for _, _, original_id in drafts})
        try:
            originals = {payment.payment_id: payment for payment in self._journal.load(wanted)}
        except (JournalUnavailableError, JournalFencedError):
            _put_off(draft for _, draft, _ in drafts)
            return
        for request, draft, original_id in drafts:
            try:
                payment = refund_of(originals.get(original_id), original_id, request, self._ids.next(now_us), now_us)
            except HutongError as error:
                refused.append((draft, error))
                continue
            payment.caller = draft.caller
            payment.idempotency = draft.idempotency
            payment.fingerprint = draft.fingerprint
            events.append(Create(payment, draft.waiter, draft.reply_by_us))
        if refused:
            self._refuse(refused, events)

    # -- refusals and repeats ----------------------------------------------------------------------------

    def _refuse(self, refused: list[tuple[Draft, HutongError]], events: list[EngineEvent]) -> None:
        """Answers refusals, unless the request repeats one that was admitted."""
        keys = [draft.idempotency for draft, _ in refused if draft.idempotency]
        try:
            standing = self._journal.repeats(keys) if keys else {}
        except (JournalUnavailableError, JournalFencedError):
            _put_off(draft for draft, _ in refused)
            return
        declines = 0
        for draft, error in refused:
            found = standing.get(draft.idempotency)
            if found is not None:
                self._repeat(draft, found, events)
            elif draft.payment is None:
                draft.fail(error)
            elif declines < DECLINES_PER_TICK_MAX:
                declines += 1
                events.append(Decline(draft.payment, draft.waiter, error))
            else:
                draft.fail(overloaded())

    def _repeat(self, draft: Draft, found: Payment, events: list[EngineEvent]) -> None:
        if found.fingerprint != draft.fingerprint:
            draft.fail(HutongError(Reason.ERROR_REASON_IDEMPOTENCY_KEY_REUSED))
        elif found.state in RESTING:
            draft.waiter.answer(response(found))
        else:
            events.append(Join(found.payment_id, draft.waiter, draft.reply_by_us))


def _put_off(drafts: Iterable[Draft]) -> None:
    """Answers requests that cannot be compared with earlier ones, because the journal cannot be read."""
    _fail(drafts, HutongError(Reason.ERROR_REASON_JOURNAL_UNAVAILABLE))


def _fail(drafts: Iterable[Draft], error: HutongError) -> None:
    for draft in drafts:
        draft.fail(error)


def _not_served(currency: str, served: Iterable[str], **named: str) -> HutongError:
    shown = ", ".join(sorted(served)[:CURRENCIES_SHOWN_MAX])
    return HutongError(Reason.ERROR_REASON_CURRENCY_NOT_SERVED, currency=currency, served=shown, **named)


def _face_use(draft: Draft) -> FaceUse:
    payee = draft.payee
    assert payee is not None, "validated before"
    return FaceUse(
        sealed=draft.request.payer.face.sealed,
        amount_minor=draft.amount_minor,
        currency=draft.currency,
        merchant_id=payee.merchant.id,
        terminal_id=payee.terminal_id,
    )
