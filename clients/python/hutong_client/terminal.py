"""An emulated terminal: a shop's counter that shows the merchant's codes, scans wallets' codes and looks at faces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from hutong.facepay.v1 import face_pb2
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_client import keys, receipt
from hutong_client.client import HutongClient
from hutong_client.optics import Blind, NoOpticsError, Optics


class Shop(Protocol):
    """The owner of a terminal. `Till` is one; a test bed may have its own."""

    @property
    def id(self) -> str:
        """The merchant's id in the gateway's directory."""
        ...

    @property
    def currency(self) -> str:
        """The currency that the merchant charges in, ISO 4217."""
        ...


@dataclass(frozen=True, slots=True)
class Till:
    """A merchant of the gateway's directory; see Shop."""

    id: str
    currency: str


Where = TypeVar("Where", bound=Shop)
WherePrinted = TypeVar("WherePrinted", bound=Shop, contravariant=True)


class CodePrinter(Protocol[WherePrinted]):
    """Writes merchants' codes."""

    def merchant_code(self, merchant: WherePrinted, terminal_id: str, amount_minor: int | None) -> str:
        """The text of a merchant's code in its own scheme: static without an amount, dynamic with one."""
        ...


class EmulatedTerminal(Generic[Where]):
    """One terminal of a merchant."""

    def __init__(
        self,
        merchant: Where,
        terminal_id: str,
        client: HutongClient,
        optics: Optics | None = None,
        printer: CodePrinter[Where] | None = None,
    ) -> None:
        """`optics`: screen and camera; `printer`: writes the merchant's codes. Without them it charges keys that are
        typed or come from elsewhere."""
        self.merchant = merchant
        self.id = terminal_id
        self._client = client
        self._optics = optics or Blind()
        self._printer = printer

    def print_static(self) -> Path:
        """The sticker on the counter: the merchant's code without an amount, as an image file. Raises NoOpticsError
        without optics or printer."""
        return self._optics.show(f"{self.id}-static", self._code(None))

    def show_dynamic(self, amount_minor: int) -> Path:
        """A code for one purchase, with its amount in minor units, as an image file. Raises as `print_static`."""
        text = self._code(amount_minor)
        return self._optics.show(f"{self.id}-dynamic-{amount_minor}", text)

    def charge_scanned(self, image: Path, amount_minor: int, *, idempotency_key: str = "") -> pb.Payment:
        """Scans the code that a wallet shows and charges it."""
        return self.charge(keys.barcode(self._optics.scan(image)), amount_minor, idempotency_key=idempotency_key)

    def charge_face(self, capture: face_pb2.FaceCapture, amount_minor: int) -> pb.Payment:
        """Charges whoever the sealed capture shows."""
        return self.charge(keys.face(capture.sealed), amount_minor)

    def charge(self, payer: pb.RoutingKey, amount_minor: int, *, idempotency_key: str = "") -> pb.Payment:
        """Charges any payer's key."""
        return self._client.create_payment(
            payer=payer,
            payee=keys.merchant(self.merchant.id, self.id),
            amount_minor=amount_minor,
            currency=self.merchant.currency,
            idempotency_key=idempotency_key,
            reference=f"at {self.id}",
        )

    def hold(self, payer: pb.RoutingKey, amount_minor: int, hold_s: int = 0) -> pb.Payment:
        """Sets an amount aside (pre-authorisation), for the gateway's default time or so many seconds."""
        return self._client.create_payment(
            payer=payer,
            payee=keys.merchant(self.merchant.id, self.id),
            amount_minor=amount_minor,
            currency=self.merchant.currency,
            reference=f"at {self.id}",
            hold_s=hold_s,
        )

    def capture(self, payment_id: str, amount_minor: int = 0) -> pb.Payment:
        """Takes what was set aside, or a part of it."""
        return self._client.capture_payment(payment_id, amount_minor=amount_minor)

    def void(self, payment_id: str) -> pb.Payment:
        """Frees what was set aside."""
        return self._client.cancel_payment(payment_id)

    def receipt(self, payment_id: str) -> str:
        """The paper that the terminal prints."""
        return receipt.render(self._client.get_receipt(payment_id))

    def refund(self, payment_id: str, amount_minor: int = 0) -> pb.Payment:
        """Gives back a part of a payment, or all that is left of it."""
        return self._client.refund_payment(payment_id, amount_minor=amount_minor, reference=f"at {self.id}")

    def _code(self, amount_minor: int | None) -> str:
        if self._printer is None:
            raise NoOpticsError(f"nothing writes the codes of {self.id}: give it a printer")
        return self._printer.merchant_code(self.merchant, self.id, amount_minor)
