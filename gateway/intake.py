"""From a caller's request to an engine event: validate, resolve both keys, route. Answers what it refuses itself.

Works on batches, on the engine's thread, and before the tick: nothing here is durable. A request that would be
refused is looked up first: if it repeats one that was admitted, that one's answer is given instead, since a code may
have expired since.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from contract.errors import HutongError, Reason
from contract.secret import Secret
from facepay.interface import FaceMatch, FaceResolver, FaceUse
from gateway import barcode
from gateway.barcode.currencies import EXPONENT_OF
from gateway.calls import CANCEL, CREATE, CREATE_BATCH, REFUND, BatchWaiter, Call
from gateway.directory import Merchant
from gateway.engine.answer import response
from gateway.engine.clock import PaymentIds
from gateway.engine.model import Cancel, Create, EngineEvent, Join, Kind, LegKind, LegState, Payment, Waiter
from gateway.engine.states import FINAL, State
from gateway.journal.interface import Journal
from gateway.routing import Router
from hutong.gateway.v1 import payment_pb2 as pb
from tokenization.interface import Cryptogram, KeyUse, PayerKeyKind, Resolution, TokenResolver

BATCH_MAX: Final = 500
KEY_CHARACTERS_MAX: Final = 64
REFERENCE_CHARACTERS_MAX: Final = 64
AMOUNT_MINOR_MAX: Final = 999_999_999_999
"""Twelve digits, as in ISO 8583 field 4."""
DEADLINE_DEFAULT_US: Final = 30_000_000
DEADLINE_MAX_US: Final = 86_400_000_000
REPLY_MARGIN_US: Final = 50_000
"""An unfinished payment is answered this long before the call's own deadline, so that the answer arrives in time."""
REPLY_MAX_US: Final = 60_000_000
"""A call without a deadline of its own is answered after this."""

_KEY_KINDS: Final = {
    PayerKeyKind.PAYMENT_CODE: pb.KEY_KIND_PAYMENT_CODE,
    PayerKeyKind.CONSUMER_CODE: pb.KEY_KIND_CONSUMER_CODE,
    PayerKeyKind.TOKEN: pb.KEY_KIND_TOKEN,
    PayerKeyKind.FACE: pb.KEY_KIND_FACE,
    PayerKeyKind.TRANSIT: pb.KEY_KIND_TRANSIT,
}
_CHANNELS: Final = {
    PayerKeyKind.PAYMENT_CODE: "qr_consumer_presented",
    PayerKeyKind.CONSUMER_CODE: "qr_consumer_presented",
    PayerKeyKind.FACE: "face",
    PayerKeyKind.TRANSIT: "transit",
}


@dataclass(slots=True)
class Payee:
    """Where the money is to go, as the payee's key says."""

    merchant: Merchant
    terminal_id: str
    kind: int
    amount_minor: int | None = None
    currency: str | None = None
    reference: str = ""


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
    amount_minor: int = 0
    currency: str = ""
    payee: Payee | None = None
    face: FaceMatch | HutongError | None = None
    """What the face service said; set when the draft comes back from it."""

    def fail(self, error: HutongError) -> None:
        """Answers the caller."""
        self.waiter.fail(error)


class PaymentIntake:
    """See gateway.engine.loop.Intake."""

    def __init__(
        self,
        router: Router,
        tokens: TokenResolver,
        journal: Journal,
        fingerprint_key: bytes,
        *,
        faces: FaceResolver | None = None,
        workers: Executor | None = None,
        give_back: Callable[[Sequence[Draft]], None] = lambda _: None,
    ) -> None:
        """`faces` works on `workers`; what it finished comes back through `give_back`, the engine's inbox."""
        self._router = router
        self._tokens = tokens
        self._journal = journal
        self._key = fingerprint_key
        self._faces = faces
        self._workers = workers
        self._give_back = give_back
        self._ids = PaymentIds()

    def refuse(self, call: Call | Draft, reason: int) -> None:
        """See the interface."""
        call.fail(HutongError(reason))  # type: ignore[arg-type]

    def prepare(self, calls: Sequence[Call | Draft], now_us: int, room: int) -> list[EngineEvent]:
        """See the interface."""
        events: list[EngineEvent] = []
        drafts: list[Draft] = []
        refunds: list[tuple[pb.RefundPaymentRequest, Call]] = []
        for call in calls:
            try:
                if isinstance(call, Draft):
                    drafts.append(call)
                elif call.method == CANCEL:
                    request = pb.CancelPaymentRequest.FromString(call.payload)
                    events.append(Cancel(payment_id_bytes(request.payment_id), call))
                elif room <= 0:
                    call.fail(HutongError(Reason.ERROR_REASON_OVERLOADED))
                elif call.method == REFUND:
                    refunds.append((pb.RefundPaymentRequest.FromString(call.payload), call))
                    room -= 1
                else:
                    room -= self._open(call, drafts, now_us, room)
            except DecodeError:
                call.fail(HutongError(Reason.ERROR_REASON_MESSAGE_MALFORMED))
            except HutongError as error:
                call.fail(error)
        if drafts:
            self._create(drafts, events, now_us)
        if refunds:
            self._refund(refunds, events, now_us)
        return events

    def _open(self, call: Call, drafts: list[Draft], now_us: int, room: int) -> int:
        """Parses a CreatePayment or a batch of them; returns how many payments it asks for."""
        reply_by_us = reply_by(call, now_us)
        if call.method == CREATE:
            request = pb.CreatePaymentRequest.FromString(call.payload)
            drafts.append(Draft(request, call, call.caller, reply_by_us))
            return 1
        assert call.method == CREATE_BATCH, "fronts pass no other method to the engine"
        requests = pb.BatchCreatePaymentsRequest.FromString(call.payload).requests
        if not requests:
            raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field="requests")
        if len(requests) > BATCH_MAX:
            raise HutongError(Reason.ERROR_REASON_BATCH_TOO_LARGE, size=str(len(requests)), most=str(BATCH_MAX))
        if len(requests) > room:
            raise HutongError(Reason.ERROR_REASON_OVERLOADED)
        batch = BatchWaiter(call, len(requests))
        drafts.extend(Draft(one, batch.part(i), call.caller, reply_by_us) for i, one in enumerate(requests))
        return len(requests)

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
        resolved = self._tokens.resolve(uses, now_us) if uses else []
        for draft, use, resolution in zip(users, uses, resolved, strict=True):
            try:
                if isinstance(resolution, HutongError):
                    raise resolution
                events.append(self._admit(draft, use, resolution, now_us))
            except HutongError as error:
                refused.append((draft, error))
        if faces:
            refused.extend(self._look_at_faces(faces, now_us))
        if refused:
            self._refuse(refused, events)

    def _validate(self, draft: Draft, now_us: int) -> None:
        request = draft.request
        check_key(request.idempotency_key)
        draft.idempotency = _hash(draft.caller, request.idempotency_key)
        if not request.HasField("payer"):
            raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field="payer")
        if not request.HasField("payee"):
            raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field="payee")
        draft.fingerprint = self._fingerprint(
            request.payer.SerializeToString(deterministic=True),
            request.payee.SerializeToString(deterministic=True),
            request.amount_minor,
            request.currency,
            request.reference,
        )
        if len(request.reference) > REFERENCE_CHARACTERS_MAX:
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="reference", most=str(REFERENCE_CHARACTERS_MAX))
        draft.deadline_us = _deadline(request, now_us)
        if draft.reply_by_us <= now_us:
            raise HutongError(Reason.ERROR_REASON_DEADLINE_PAST)
        draft.payee = payee = self._payee(request.payee)
        draft.amount_minor, draft.currency = _amount(request, payee)

    def _payee(self, key: pb.RoutingKey) -> Payee:
        named = key.WhichOneof("key")
        if named == "merchant":
            merchant = self._router.directory.merchants.get(key.merchant.merchant_id)
            terminal = key.merchant.terminal_id
            if merchant is None or (terminal and terminal not in merchant.terminals):
                raise HutongError(Reason.ERROR_REASON_MERCHANT_UNKNOWN)
            return Payee(merchant, terminal, pb.KEY_KIND_MERCHANT)
        if named == "barcode":
            return self._payee_of_barcode(key.barcode)
        if named is None:
            raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field="payee.key")
        raise HutongError(Reason.ERROR_REASON_KEY_NOT_PAYEE, key=named)

    def _payee_of_barcode(self, text: str) -> Payee:
        decoded = barcode.decode(text)
        if decoded.kind in ("payment_code", "emv_cpm"):
            raise HutongError(Reason.ERROR_REASON_KEY_NOT_PAYEE, key=decoded.kind)
        routing = _routing(decoded)
        merchant = self._router.directory.merchant(routing.scheme, routing.account)
        if merchant is None:
            if self._router.directory.participant_for(routing.scheme, routing.participant) is None:
                raise HutongError(Reason.ERROR_REASON_NO_ROUTE, scheme=routing.scheme)
            raise HutongError(Reason.ERROR_REASON_MERCHANT_UNKNOWN, scheme=routing.scheme)
        terminal = routing.terminal_id if routing.terminal_id in merchant.terminals else ""
        return Payee(
            merchant,
            terminal,
            pb.KEY_KIND_MERCHANT_CODE,
            decoded.amount_minor,
            decoded.currency,
            (decoded.reference or "")[:REFERENCE_CHARACTERS_MAX],
        )

    def _key_use(self, draft: Draft) -> KeyUse:
        """The payer's key with the facts that its domain is checked against."""
        payer, payee = draft.request.payer, draft.payee
        assert payee is not None, "validated before"
        named = payer.WhichOneof("key")
        requestor = assurance = ""
        cryptogram: Cryptogram | None = None
        if isinstance(draft.face, FaceMatch):
            kind, value, assurance = PayerKeyKind.FACE, draft.face.reference, draft.face.assurance_method
        elif named == "token":
            kind, value, requestor = PayerKeyKind.TOKEN, Secret(payer.token.token), payer.token.requestor_id
            if payer.token.HasField("cryptogram"):
                given = payer.token.cryptogram
                cryptogram = Cryptogram(given.value, given.counter, given.unpredictable_number)
        elif named == "payment_code":
            kind, value, _, _ = _payer_code(barcode.decode(payer.payment_code))
            if kind is not PayerKeyKind.PAYMENT_CODE:
                raise HutongError(Reason.ERROR_REASON_BARCODE_MALFORMED, field="payer.payment_code")
        elif named == "barcode":
            kind, value, requestor, cryptogram = _payer_code(barcode.decode(payer.barcode))
        elif named is None:
            raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field="payer.key")
        else:
            raise HutongError(Reason.ERROR_REASON_KEY_NOT_PAYER, key=named)
        scanned = payee.kind == pb.KEY_KIND_MERCHANT_CODE
        return KeyUse(
            kind=kind,
            value=value,
            amount_minor=draft.amount_minor,
            currency=draft.currency,
            merchant_id=payee.merchant.id,
            terminal_id=payee.terminal_id,
            merchant_category=payee.merchant.mcc,
            channel=_CHANNELS.get(kind) or ("qr_merchant_presented" if scanned else "token"),
            requestor_id=requestor,
            cryptogram=cryptogram,
            assurance_method=assurance,
        )

    def _admit(self, draft: Draft, use: KeyUse, resolution: Resolution, now_us: int) -> Create:
        payee = draft.payee
        assert payee is not None, "validated before"
        route = self._router.route(payee.merchant, draft.currency, now_us)
        if not route.acquirers:
            raise HutongError(Reason.ERROR_REASON_ACQUIRER_UNAVAILABLE, merchant_id=payee.merchant.id)
        issuer = self._router.directory.participants.get(resolution.issuer_id)
        if issuer is None or (issuer.currencies and draft.currency not in issuer.currencies):
            raise HutongError(Reason.ERROR_REASON_NO_ROUTE, issuer_id=resolution.issuer_id, currency=draft.currency)
        spends = resolution.spends
        if isinstance(draft.face, FaceMatch):
            spends = (*spends, draft.face.capture_id)
        payment = Payment(
            payment_id=self._ids.next(now_us),
            kind=Kind.PAYMENT,
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
            payer_key=_KEY_KINDS[use.kind],
            payee_key=payee.kind,
            merchant_id=payee.merchant.id,
            terminal_id=payee.terminal_id,
            reference=draft.request.reference or payee.reference,
            route=route.explanation,
            route_id=route.route_id,
            spends=spends,
            spend_reason=resolution.spend_reason,
            counters=tuple((use.counter, use.add, use.cap, use.reason) for use in resolution.counters),
        )
        return Create(payment, draft.waiter, min(draft.reply_by_us, draft.deadline_us + REPLY_MAX_US))

    # -- faces: searched and checked on worker threads ---------------------------------------------------

    def _look_at_faces(self, drafts: list[Draft], now_us: int) -> list[tuple[Draft, HutongError]]:
        faces, workers = self._faces, self._workers
        if faces is None or workers is None:
            return [(draft, HutongError(Reason.ERROR_REASON_FACE_UNAVAILABLE)) for draft in drafts]
        workers.submit(self._resolve_faces, faces, drafts, now_us)
        return []

    def _resolve_faces(self, faces: FaceResolver, drafts: list[Draft], now_us: int) -> None:
        """Runs on a worker; every draft goes back to the engine, with a match or an error."""
        try:
            matches = faces.resolve([_face_use(draft) for draft in drafts], now_us)
            for draft, match in zip(drafts, matches, strict=True):
                draft.face = match
        except Exception:  # noqa: BLE001 - whatever the face service does, its callers get an answer
            for draft in drafts:
                draft.face = HutongError(Reason.ERROR_REASON_FACE_UNAVAILABLE)
        self._give_back(drafts)

    # -- refunds ---------------------------------------------------------------------------------------

    def _refund(
        self, refunds: list[tuple[pb.RefundPaymentRequest, Call]], events: list[EngineEvent], now_us: int
    ) -> None:
        refused: list[tuple[Draft, HutongError]] = []
        originals: dict[bytes, Payment] = {}
        drafts: list[tuple[pb.RefundPaymentRequest, Draft, bytes]] = []
        for request, call in refunds:
            try:
                check_key(request.idempotency_key)
                payment_id = payment_id_bytes(request.payment_id)
            except HutongError as error:
                call.fail(error)
                continue
            draft = Draft(pb.CreatePaymentRequest(), call, call.caller, reply_by(call, now_us))
            draft.idempotency = _hash(call.caller, request.idempotency_key)
            draft.fingerprint = self._fingerprint(payment_id, b"refund", request.amount_minor, "", request.reference)
            drafts.append((request, draft, payment_id))
        wanted = {payment_id for _, _, payment_id in drafts}
        originals = {payment.payment_id: payment for payment in self._journal.load(sorted(wanted))}
        for request, draft, payment_id in drafts:
            try:
                events.append(self._admit_refund(request, draft, originals.get(payment_id), now_us))
            except HutongError as error:
                refused.append((draft, error))
        if refused:
            self._refuse(refused, events)

    def _admit_refund(
        self, request: pb.RefundPaymentRequest, draft: Draft, original: Payment | None, now_us: int
    ) -> Create:
        if original is None:
            raise HutongError(Reason.ERROR_REASON_PAYMENT_NOT_FOUND, payment_id=request.payment_id)
        if original.kind == Kind.REFUND:
            raise HutongError(Reason.ERROR_REASON_REFUND_OF_REFUND)
        if original.state is not State.SUCCEEDED:
            raise HutongError(Reason.ERROR_REASON_PAYMENT_NOT_REFUNDABLE, state=original.state.name)
        if len(request.reference) > REFERENCE_CHARACTERS_MAX:
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="reference", most=str(REFERENCE_CHARACTERS_MAX))
        if request.amount_minor < 0:
            raise HutongError(Reason.ERROR_REASON_AMOUNT_NOT_POSITIVE)
        left = original.amount_minor - original.refunded_minor
        amount = request.amount_minor or left
        if amount > left or amount <= 0:
            raise HutongError(Reason.ERROR_REASON_REFUND_EXCEEDS_PAYMENT, left_minor=str(left))
        credit = next(leg for leg in original.legs if leg.kind == LegKind.CREDIT and leg.state == LegState.APPROVED)
        payment = Payment(
            payment_id=self._ids.next(now_us),
            kind=Kind.REFUND,
            amount_minor=amount,
            currency=original.currency,
            debtor=credit.participant,
            creditors=(original.debtor,),
            created_us=now_us,
            deadline_us=now_us + DEADLINE_DEFAULT_US,
            caller=draft.caller,
            idempotency=draft.idempotency,
            fingerprint=draft.fingerprint,
            account_ref=original.account_ref,
            key_ref=original.key_ref,
            last_four=original.last_four,
            payer_key=original.payer_key,
            payee_key=original.payee_key,
            merchant_id=original.merchant_id,
            terminal_id=original.terminal_id,
            reference=request.reference,
            original_id=original.payment_id,
            debit_original=original.payment_id + credit.number.to_bytes(1, "big"),
            credit_original=original.payment_id + b"\x01",
        )
        return Create(payment, draft.waiter, draft.reply_by_us)

    # -- refusals and repeats ----------------------------------------------------------------------------

    def _refuse(self, refused: list[tuple[Draft, HutongError]], events: list[EngineEvent]) -> None:
        """Answers refusals, unless the request repeats one that was admitted."""
        keys = [draft.idempotency for draft, _ in refused if draft.idempotency]
        standing = self._journal.repeats(keys) if keys else {}
        for draft, error in refused:
            found = standing.get(draft.idempotency)
            if found is None:
                draft.fail(error)
            else:
                self._repeat(draft, found, events)

    def _repeat(self, draft: Draft, found: Payment, events: list[EngineEvent]) -> None:
        if found.fingerprint != draft.fingerprint:
            draft.fail(HutongError(Reason.ERROR_REASON_IDEMPOTENCY_KEY_REUSED))
        elif found.state in FINAL:
            draft.waiter.answer(response(found))
        else:
            events.append(Join(found.payment_id, draft.waiter, draft.reply_by_us))

    def _fingerprint(self, payer: bytes, payee: bytes, amount_minor: int, currency: str, reference: str) -> bytes:
        """16 bytes over what was asked for; keyed, since a payment code or token is in it. The deadline is not: a
        repeat has another."""
        text = f"{len(payer)} {len(payee)} {amount_minor} {currency} {reference}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(payer + payee + text, digest_size=16, key=self._key).digest()


# -- parts of requests ------------------------------------------------------------------------------------


def check_key(key: str) -> None:
    """Raises unless an idempotency key is 1 to 64 printable ASCII characters."""
    if not key:
        raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field="idempotency_key")
    if len(key) > KEY_CHARACTERS_MAX or not (key.isascii() and key.isprintable()):
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="idempotency_key", allowed="1 to 64 printable ASCII")


def payment_id_bytes(text: str) -> bytes:
    """The 16 bytes of a payment's id. Raises if it is none."""
    if not text:
        raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field="payment_id")
    try:
        if len(text) != 36:
            raise ValueError(text)
        return uuid.UUID(text).bytes
    except ValueError:
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="payment_id", allowed="a UUID") from None


def reply_by(call: Call, now_us: int) -> int:
    """When the caller must have an answer, final or not."""
    if call.time_left_us is None:
        return now_us + REPLY_MAX_US
    margin = min(REPLY_MARGIN_US, call.time_left_us // 4)
    return now_us + min(call.time_left_us - margin, REPLY_MAX_US)


def _hash(caller: str, key: str) -> bytes:
    return hashlib.blake2b(f"{len(caller)} {caller}{key}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _deadline(request: pb.CreatePaymentRequest, now_us: int) -> int:
    if not request.HasField("deadline"):
        return now_us + DEADLINE_DEFAULT_US
    deadline_us = request.deadline.seconds * 1_000_000 + request.deadline.nanos // 1000
    if deadline_us <= now_us:
        raise HutongError(Reason.ERROR_REASON_DEADLINE_PAST)
    if deadline_us > now_us + DEADLINE_MAX_US:
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="deadline", most="24 hours ahead")
    return deadline_us


def _amount(request: pb.CreatePaymentRequest, payee: Payee) -> tuple[int, str]:
    """The amount and currency to pay: the request's, which must agree with the code's where it has them."""
    currency = request.currency or payee.currency or ""
    if not currency:
        raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field="currency")
    if currency not in EXPONENT_OF:
        raise HutongError(Reason.ERROR_REASON_CURRENCY_UNKNOWN, currency=currency[:3])
    if payee.currency is not None and currency != payee.currency:
        raise HutongError(Reason.ERROR_REASON_CURRENCY_MISMATCH, code=payee.currency, request=currency)
    amount = request.amount_minor or payee.amount_minor or 0
    if amount <= 0:
        raise HutongError(Reason.ERROR_REASON_AMOUNT_NOT_POSITIVE)
    if amount > AMOUNT_MINOR_MAX:
        raise HutongError(Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT, most_minor=str(AMOUNT_MINOR_MAX))
    if payee.amount_minor is not None and amount != payee.amount_minor:
        raise HutongError(
            Reason.ERROR_REASON_CURRENCY_MISMATCH, code_minor=str(payee.amount_minor), request_minor=str(amount)
        )
    return amount, currency


def _routing(decoded: barcode.Decoded) -> barcode.Routing:
    if decoded.kind == "unknown":
        raise HutongError(Reason.ERROR_REASON_BARCODE_UNKNOWN)
    verdict = decoded.profile or decoded.strict
    if verdict is not None and not verdict.valid:
        first = verdict.violations[0]
        rule = first.rule
        reason = Reason.ERROR_REASON_AMOUNT_PRECISION if rule == "amount_precision" else None
        raise HutongError(
            reason or Reason.ERROR_REASON_BARCODE_MALFORMED, path=first.path, rule=rule, scheme=decoded.scheme or ""
        )
    if decoded.routing is None:
        raise HutongError(Reason.ERROR_REASON_NO_ROUTE, scheme=decoded.scheme or "")
    return decoded.routing


def _payer_code(decoded: barcode.Decoded) -> tuple[PayerKeyKind, Secret[str], str, Cryptogram | None]:
    """The payer's credential in what a terminal scanned."""
    if decoded.kind in ("emv_mpm", "link"):
        raise HutongError(Reason.ERROR_REASON_KEY_NOT_PAYER, key=decoded.kind)
    routing = _routing(decoded)
    if decoded.credential is None or routing.scheme != "hutong":
        raise HutongError(Reason.ERROR_REASON_CODE_FOREIGN, scheme=routing.scheme)
    credential = decoded.credential
    if credential.kind == "payment_code":
        return PayerKeyKind.PAYMENT_CODE, credential.value, "", None
    cryptogram = None
    if credential.cryptogram is not None and credential.counter is not None:
        value = credential.cryptogram.reveal()
        cryptogram = Cryptogram(value, credential.counter, credential.unpredictable_number or 0)
    return PayerKeyKind.CONSUMER_CODE, credential.value, credential.requestor_id, cryptogram


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
