"""Resolves routing keys: a payee's key to a merchant of the directory, a payer's key to what the token service takes.

A new kind of key is a case here (or a kind of barcode), and nothing else in the gateway.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from facepay.interface import FaceMatch
from gateway import barcode
from gateway.directory import Directory, Merchant
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract import transit
from hutong_contract.bounded import Bounded
from hutong_contract.errors import HutongError, Reason
from hutong_contract.limits import REFERENCE_CHARACTERS_MAX
from hutong_contract.secret import Secret
from tokenization.interface import Cryptogram, KeyUse, PayerKeyKind

KEY_KINDS: Final = {
    PayerKeyKind.PAYMENT_CODE: pb.KEY_KIND_PAYMENT_CODE,
    PayerKeyKind.CONSUMER_CODE: pb.KEY_KIND_CONSUMER_CODE,
    PayerKeyKind.TOKEN: pb.KEY_KIND_TOKEN,
    PayerKeyKind.FACE: pb.KEY_KIND_FACE,
    PayerKeyKind.TRANSIT: pb.KEY_KIND_TRANSIT,
}
PAYEES_MAX: Final = 16_384
"""Most payee keys in the cache; beyond it the cache is cleared. At most some 16 MB."""
PAYEE_BYTES_MAX: Final = 512
"""Longer keys are not cached."""
PAYEE_SHOWN_MAX: Final = 120
"""Most characters of a code's payee that a refusal shows."""
_TOKEN: Final = PayerKeyKind.TOKEN
_CHANNELS: Final = {
    PayerKeyKind.PAYMENT_CODE: "qr_consumer_presented",
    PayerKeyKind.CONSUMER_CODE: "qr_consumer_presented",
    PayerKeyKind.FACE: "face",
    PayerKeyKind.TRANSIT: "transit",
}


@dataclass(frozen=True, slots=True)
class Payee:
    """What a payee's key resolves to: a merchant, and what its code says about the payment."""

    merchant: Merchant
    terminal_id: str
    kind: int
    amount_minor: int | None = None
    """Total amount that the code asks for, its fee included; None if the payer enters the amount."""
    currency: str | None = None
    least_minor: int | None = None
    """Smallest amount, if the payer may pay another amount than `amount_minor` (the code asks for a tip)."""
    fee_minor: int = 0
    """Fixed fee, part of the amount that the payer enters."""
    reference: str = ""
    order: bytes = b""
    """16 bytes that stand for the order that a dynamic code names, which is paid once; empty: it names none."""
    static: bool = False
    """Whether the payer scanned a code that does not change. A dynamic code past its time is refused, not taken for a
    static one."""
    lasting: bool = True
    """Whether this key always resolves to this payee: it names the merchant, or is a code that neither changes nor
    expires."""


class Payees:
    """Caches resolved payee keys whose target never changes."""

    def __init__(self, directory: Directory, most: int = PAYEES_MAX) -> None:
        """`most`: how many are cached."""
        self._directory = directory
        self._known: Bounded[bytes, Payee] = Bounded(most)

    def find(self, key: pb.RoutingKey, serialized: bytes, now_us: int) -> Payee:
        """As `payee`, from the cache where possible; `serialized` is the key as bytes."""
        found = self._known.get(serialized)
        if found is None:
            found = payee(key, self._directory, now_us)
            if found.lasting and len(serialized) <= PAYEE_BYTES_MAX:
                self._known.put(serialized, found)
        return found


def payee(key: pb.RoutingKey, directory: Directory, now_us: int) -> Payee:
    """Resolves a payee's key. Raises HutongError."""
    named = key.WhichOneof("key")
    if named == "merchant":
        merchant = directory.merchants.get(key.merchant.merchant_id)
        terminal = key.merchant.terminal_id
        if merchant is None or (terminal and terminal not in merchant.terminals):
            raise HutongError(Reason.ERROR_REASON_MERCHANT_UNKNOWN)
        return Payee(merchant, terminal, pb.KEY_KIND_MERCHANT)
    if named == "barcode":
        return _payee_of_barcode(key.barcode, directory, now_us)
    if named is None:
        raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field="payee.key")
    raise HutongError(Reason.ERROR_REASON_KEY_NOT_PAYEE, key=named)


def _payee_of_barcode(text: str, directory: Directory, now_us: int) -> Payee:
    decoded = barcode.decode(text, now_us=now_us)
    if decoded.kind in ("payment_code", "emv_cpm"):
        raise HutongError(Reason.ERROR_REASON_KEY_NOT_PAYEE, key=decoded.kind)
    routing = _routing(decoded)
    if decoded.purpose is not None and decoded.purpose not in barcode.PAYABLE:
        raise HutongError(Reason.ERROR_REASON_CODE_NOT_PAYABLE, purpose=decoded.purpose, scheme=routing.scheme)
    merchant = directory.merchant(routing.scheme, routing.payee)
    if merchant is None:
        merchant, routing = _elsewhere(decoded, directory) or (None, routing)
    if merchant is None:
        if directory.participant_for(routing.scheme, routing.participant) is None:
            raise HutongError(Reason.ERROR_REASON_NO_ROUTE, scheme=routing.scheme)
        # The directory lists merchants by this text: whoever keeps it can see what is missing there.
        shown = routing.payee[:PAYEE_SHOWN_MAX]
        raise HutongError(Reason.ERROR_REASON_MERCHANT_UNKNOWN, scheme=routing.scheme, payee=shown)
    terminal = routing.terminal_id if routing.terminal_id in merchant.terminals else ""
    reference = decoded.reference or ""
    dynamic = decoded.initiation == "dynamic"
    # A printed bill or slip is paid again: a customer's number stands on every month's bill, a text on every gift.
    once = dynamic and decoded.kind not in ("bill", "credit_transfer") and reference not in ("", barcode.ASKED_FOR)
    return Payee(
        merchant,
        terminal,
        pb.KEY_KIND_MERCHANT_CODE,
        decoded.amount_due_minor if decoded.amount_due_minor is not None else decoded.amount_minor,
        decoded.currency,
        decoded.amount_least_minor,
        (decoded.tip_minor or 0) if decoded.amount_minor is None else 0,
        reference[:REFERENCE_CHARACTERS_MAX],
        order_value(merchant.id, reference) if once else b"",
        not dynamic,
        not dynamic and decoded.expires_us is None,
    )


def order_value(merchant_id: str, reference: str) -> bytes:
    """16 bytes that stand for an order of a merchant, whichever scheme's code asks for it."""
    text = f"{len(merchant_id)} {merchant_id}{reference}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16, person=b"hutong order").digest()


def _elsewhere(decoded: barcode.Decoded, directory: Directory) -> tuple[Merchant, barcode.Routing] | None:
    """The merchant that another scheme's part of the code names: a label of several schemes is paid by the first one
    that is known here. A code that only points to its payment says nothing that holds for another scheme."""
    if decoded.candidates and decoded.candidates[0].remote:
        return None
    for candidate in decoded.candidates[1:]:
        key = candidate.routing
        if key is not None and candidate.profile.valid and candidate.purpose in barcode.PAYABLE:
            merchant = directory.merchant(key.scheme, key.payee)
            if merchant is not None:
                return merchant, key
    return None


def key_use(payer: pb.RoutingKey, payee: Payee, amount_minor: int, currency: str, face: FaceMatch | None) -> KeyUse:
    """The payer's key, with the facts that its domain is checked against. `face`: the face service's match, if the key
    is a face. Raises HutongError."""
    named = payer.WhichOneof("key")
    requestor = assurance = ""
    cryptogram: Cryptogram | None = None
    if face is not None:
        kind, value, assurance = PayerKeyKind.FACE, face.reference, face.assurance_method
    elif named == "token":
        token = payer.token
        kind, value, requestor = _TOKEN, Secret(token.token), token.requestor_id
        if token.HasField("cryptogram"):
            given = token.cryptogram
            cryptogram = Cryptogram(given.value, given.counter, given.unpredictable_number)
    elif named == "payment_code":
        kind, value, _, _ = _payer_code(barcode.decode(payer.payment_code))
        if kind is not PayerKeyKind.PAYMENT_CODE:
            raise HutongError(Reason.ERROR_REASON_BARCODE_MALFORMED, field="payer.payment_code")
    elif named == "barcode" and transit.is_transit_code(payer.barcode):
        kind, value = PayerKeyKind.TRANSIT, Secret(payer.barcode)
    elif named == "barcode":
        kind, value, requestor, cryptogram = _payer_code(barcode.decode(payer.barcode))
    elif named is None:
        raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field="payer.key")
    else:
        raise HutongError(Reason.ERROR_REASON_KEY_NOT_PAYER, key=named)
    scanned = payee.kind == pb.KEY_KIND_MERCHANT_CODE
    return KeyUse(
        kind,
        value,
        amount_minor,
        currency,
        payee.merchant.id,
        payee.terminal_id,
        payee.merchant.mcc,
        _CHANNELS.get(kind) or ("qr_merchant_presented" if scanned else "token"),
        requestor_id=requestor,
        cryptogram=cryptogram,
        assurance_method=assurance,
    )


def _routing(decoded: barcode.Decoded) -> barcode.Routing:
    if decoded.kind == "unknown":
        raise HutongError(Reason.ERROR_REASON_BARCODE_UNKNOWN)
    verdict = decoded.profile or decoded.strict
    if verdict is not None and not verdict.valid:
        if any(violation.rule == barcode.EXPIRED for violation in verdict.violations):
            raise HutongError(Reason.ERROR_REASON_CODE_EXPIRED, scheme=decoded.scheme or "")
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
    """The payer's credential in the code that a terminal scanned."""
    if decoded.kind in ("emv_mpm", "link", "bill", "credit_transfer"):
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
