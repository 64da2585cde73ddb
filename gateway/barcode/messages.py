"""Conversion between this package's values and the messages of hutong.gateway.v1.BarcodeService."""

from __future__ import annotations

from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.barcode.build import HUTONG, MerchantCode
from gateway.barcode.found import Symbol
from gateway.barcode.model import Candidate, Decoded, Verdict
from gateway.barcode.placard import DEFAULT_SIZE, Placard
from gateway.barcode.routing import Directory, Route, best_route, resolve
from gateway.barcode.symbols import DEFAULT_STYLE, Style
from gateway.barcode.tips import NONE
from gateway.barcode.translate import Translation
from hutong.gateway.v1 import barcode_pb2 as pb

_KINDS: Final = {
    "emv_mpm": pb.BARCODE_KIND_EMV_MPM,
    "emv_cpm": pb.BARCODE_KIND_EMV_CPM,
    "payment_code": pb.BARCODE_KIND_PAYMENT_CODE,
    "link": pb.BARCODE_KIND_LINK,
    "bill": pb.BARCODE_KIND_BILL,
    "credit_transfer": pb.BARCODE_KIND_CREDIT_TRANSFER,
    "unknown": pb.BARCODE_KIND_UNKNOWN,
}
_PLACARD_FORMATS: Final[dict[int, str]] = {
    pb.SYMBOL_FORMAT_UNSPECIFIED: "png",
    pb.SYMBOL_FORMAT_PNG: "png",
    pb.SYMBOL_FORMAT_SVG: "svg",
    pb.SYMBOL_FORMAT_PDF: "pdf",
}
_MICROSECONDS: Final = 1_000_000


def barcode(decoded: Decoded, directory: Directory) -> pb.Barcode:
    """A decoded barcode as a message. Contains no credential."""
    message = pb.Barcode(
        kind=_KINDS[decoded.kind],
        scheme=decoded.scheme or "",
        strict=verdict(decoded.strict),
        profile=verdict(decoded.profile),
        route=route(best_route(decoded, directory)),
        candidates=[_candidate(candidate, directory) for candidate in decoded.candidates],
        amount_minor=decoded.amount_minor,
        currency=decoded.currency or "",
        merchant_name=decoded.merchant_name or "",
        length_reading=decoded.length_reading or "",
        initiation=decoded.initiation or "",
        merchant_city=decoded.merchant_city or "",
        merchant_category=decoded.merchant_category or "",
        country=decoded.country or "",
        reference=decoded.reference or "",
        bill_number=decoded.bill_number or "",
        terminal_label=decoded.terminal_label or "",
        artefacts=decoded.artefacts,
        purpose=decoded.purpose or "",
        tip=decoded.tip or "",
        tip_minor=decoded.tip_minor,
        tip_basis_points=decoded.tip_basis_points,
        amount_due_minor=decoded.amount_due_minor,
        amount_least_minor=decoded.amount_least_minor,
    )
    if decoded.expires_us is not None:
        seconds, rest = divmod(decoded.expires_us, _MICROSECONDS)
        message.expire_time.seconds, message.expire_time.nanos = seconds, rest * 1000
    return message


def verdict(value: Verdict | None) -> pb.BarcodeVerdict | None:
    """A verdict as a message."""
    if value is None:
        return None
    violations = [pb.BarcodeViolation(path=v.path, rule=v.rule, found=v.found) for v in value.violations]
    return pb.BarcodeVerdict(valid=value.valid, violations=violations)


def route(value: Route | None) -> pb.BarcodeRoute | None:
    """A route as a message."""
    if value is None:
        return None
    key = value.routing
    return pb.BarcodeRoute(
        scheme=key.scheme,
        kind=key.kind,
        account=key.account,
        participant=key.participant,
        terminal_id=key.terminal_id,
        status=value.status,
        to=value.to or "",
        merchant_id=value.merchant_id or "",
        payee=key.payee,
    )


def _candidate(value: Candidate, directory: Directory) -> pb.BarcodeCandidate:
    return pb.BarcodeCandidate(
        scheme=value.scheme,
        score=value.score,
        profile=verdict(value.profile),
        route=route(resolve(value.routing, directory)),
        reason=value.reason,
        purpose=value.purpose,
    )


def merchant_code(request: pb.EncodeRequest) -> tuple[MerchantCode, str]:
    """The content and the scheme of an encode request."""
    code = MerchantCode(
        account=request.account,
        merchant_name=request.merchant_name,
        merchant_city=request.merchant_city,
        country=request.country or "CN",
        currency=request.currency or "CNY",
        merchant_category=request.merchant_category or "0000",
        amount_minor=request.amount_minor if request.HasField("amount_minor") else None,
        terminal_id=request.terminal_id,
        participant=request.participant,
        reference=request.reference,
        bill_number=request.bill_number,
        postal_code=request.postal_code,
        expires_us=_moment_us(request.expire_time) if request.HasField("expire_time") else None,
        tip=request.tip or NONE,
        tip_minor=request.tip_minor if request.HasField("tip_minor") else None,
        tip_basis_points=request.tip_basis_points if request.HasField("tip_basis_points") else None,
    )
    return code, request.scheme or HUTONG


def _moment_us(moment: Timestamp) -> int:
    return moment.seconds * _MICROSECONDS + moment.nanos // 1000


def style(request: pb.RenderRequest) -> Style:
    """The style of the symbol in a render request."""
    return Style(
        scale=request.scale or DEFAULT_STYLE.scale,
        level=request.level or DEFAULT_STYLE.level,
        eci=request.eci if request.HasField("eci") else None,
    )


def placard(request: pb.RenderRequest) -> tuple[Placard, str]:
    """The placard that a render request asks for, and the name of its format; empty where there is none."""
    asked = request.placard
    schemes = tuple(asked.schemes)
    form = _PLACARD_FORMATS.get(request.format, "")
    return Placard(request.text, asked.merchant_name, schemes, asked.rounded, size=asked.size or DEFAULT_SIZE), form


def symbol(found: Symbol, decoded: Decoded, directory: Directory) -> pb.ScannedSymbol:
    """A symbol that was found, with what it says."""
    corners = [coordinate for point in found.position for coordinate in point]
    return pb.ScannedSymbol(text=found.text, format=found.format, corners=corners, barcode=barcode(decoded, directory))


def translation(value: Translation, directory: Directory) -> pb.TranslateResponse:
    """A translation as a message."""
    losses = [
        pb.TranslationLoss(path=loss.path, name=loss.name, reason=loss.reason, value=loss.value)
        for loss in value.losses
    ]
    return pb.TranslateResponse(
        payload=value.payload,
        scheme=value.scheme,
        source=value.source,
        route=route(resolve(value.routing, directory)),
        losses=losses,
    )
