"""The record of one attempt: what it was, the expected outcome and the real one."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final


class Key(enum.Enum):
    """The keys that joined the two ends of a payment; the value is the letter in the matrix."""

    STATIC = "S"
    DYNAMIC = "D"
    QR = "Q"
    CODE_128 = "B"
    TOKEN = "T"
    FACE = "F"


KEY_TEXTS: Final = {
    Key.STATIC: "static merchant code",
    Key.DYNAMIC: "dynamic merchant code",
    Key.QR: "payment code as QR",
    Key.CODE_128: "payment code as Code 128",
    Key.TOKEN: "token",
    Key.FACE: "face, with passcode above 50.00",
}
EVERYWHERE: Final = (Key.STATIC, Key.DYNAMIC, Key.QR, Key.CODE_128, Key.TOKEN)
"""Keys by which every wallet must have paid through every acquirer."""


@dataclass(frozen=True, slots=True)
class Line:
    """One attempt."""

    scene: str
    wallet_id: str
    issuer_id: str
    merchant_id: str
    acquirer_id: str
    """The acquirer that was credited; empty if none was."""
    expected: str
    """A payment state or the name of a refusal's reason."""
    outcome: str
    key: Key | None = None
    """Set in the scenes that fill the matrix."""
    amount_minor: int = 0
    payment_id: str = ""
    latency_us: int = 0
    """From the payment's admission to its final state, as the gateway recorded them."""
    wrong: str = ""
    """Other deviations from what was expected."""
    note: str = ""
    """An observation, for the report."""

    @property
    def ok(self) -> bool:
        """Whether everything was as expected."""
        return self.outcome == self.expected and not self.wrong

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"key": self.key.name.lower() if self.key else None, "ok": self.ok}


def missing(lines: Iterable[Line], wallets: Sequence[str], acquirers: Sequence[str]) -> list[str]:
    """The gaps of the matrix: (wallet, acquirer, key) that did not succeed, and wallets or acquirers without a face."""
    done = {(line.wallet_id, line.acquirer_id, line.key) for line in lines if line.ok and line.key}
    gaps = [
        f"{wallet} did not pay through {acquirer} by: {KEY_TEXTS[key]}"
        for wallet in wallets
        for acquirer in acquirers
        for key in EVERYWHERE
        if (wallet, acquirer, key) not in done
    ]
    faces = [(wallet, acquirer) for wallet, acquirer, key in done if key is Key.FACE]
    gaps += [f"{wallet} did not pay by face" for wallet in wallets if wallet not in {one for one, _ in faces}]
    gaps += [f"nobody paid by face through {one}" for one in acquirers if one not in {other for _, other in faces}]
    return gaps


def percentile_us(latencies: Sequence[int], share: float) -> int:
    """The latency that `share` of them do not exceed (nearest rank); 0 if there are none."""
    if not latencies:
        return 0
    ordered = sorted(latencies)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
