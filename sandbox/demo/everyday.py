"""The scenes that fill the matrix: every wallet at every acquirer's shops, by every key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from hutong.gateway.v1 import payment_pb2 as pb
from hutong_client.optics import CODE_128, QR
from sandbox.demo.attempts import SUCCEEDED, attempt
from sandbox.demo.record import Key, Line
from sandbox.demo.stage import SimulatedTerminal, SimulatedWallet, Stage
from sandbox.population import Merchant

Task = Callable[[], list[Line]]
"""A part of a scene that may run beside others."""

FACE_SMALL_MINOR: Final = 4_200
"""Below the amount that a face may pay alone by default, 50.00 CNY."""
FACE_LARGE_MINOR: Final = 8_800
"""Above it."""
HELD: Final = "HELD"
CANCELLED: Final = "CANCELLED"
CAPTURES_MAX: Final = 3
"""Most times that a payer is asked to look into the camera."""
CAPTURE_AGAIN: Final = frozenset({"FACE_NOT_LIVE", "FACE_NO_MATCH"})
"""Refusals after which a terminal captures again: a blurred picture, or an error of a detector."""


def merchant_codes(stage: Stage) -> list[Task]:
    """Every wallet scans every acquirer's static and dynamic merchant code."""
    tasks: list[Task] = []
    for acquirer in stage.population.acquirers:
        terminal = stage.terminal_of(stage.home_merchant(acquirer.id))
        sticker = terminal.print_static()
        for wallet in stage.wallets.values():
            amount = stage.amount_minor()
            tasks.append(partial(_scan_merchant, stage, wallet, terminal.merchant, sticker, amount, Key.STATIC))
            screen = terminal.show_dynamic(amount)
            tasks.append(partial(_scan_merchant, stage, wallet, terminal.merchant, screen, amount, Key.DYNAMIC))
    return tasks


def _scan_merchant(
    stage: Stage, wallet: SimulatedWallet, merchant: Merchant, image: Path, amount: int, key: Key
) -> list[Line]:
    typed = amount if key is Key.STATIC else 0  # a dynamic code says the amount itself
    line = attempt(
        stage.client,
        "merchant codes",
        wallet.person,
        merchant,
        lambda: wallet.pay_scanned(image, typed),
        key=key,
        expected_key=pb.KEY_KIND_TOKEN,
        amount_minor=amount,
    )
    return [line]


def wallet_codes(stage: Stage) -> list[Task]:
    """Every terminal scans every wallet's payment code, as QR and as Code 128."""
    counters = list(stage.terminals.values())
    return [
        partial(_show_codes, stage, wallet, counters, [stage.amount_minor() for _ in range(2 * len(counters))])
        for wallet in stage.wallets.values()
    ]


def _show_codes(
    stage: Stage, wallet: SimulatedWallet, counters: Sequence[SimulatedTerminal], amounts: Sequence[int]
) -> list[Line]:
    """One wallet goes from counter to counter. Its first code is computed offline, the others are reserved."""
    lines = []
    visits = [(terminal, key) for terminal in counters for key in (Key.QR, Key.CODE_128)]
    for number, ((terminal, key), amount) in enumerate(zip(visits, amounts, strict=True)):
        code = wallet.online_code() if number else wallet.offline_code()
        image = wallet.show(code, QR if key is Key.QR else CODE_128)
        line = attempt(
            stage.client,
            "payment codes",
            wallet.person,
            terminal.merchant,
            partial(terminal.charge_scanned, image, amount),
            key=key,
            expected_key=pb.KEY_KIND_PAYMENT_CODE,
            amount_minor=amount,
        )
        lines.append(line)
    return lines


def tokens(stage: Stage) -> list[Task]:
    """Every acquirer's first shop charges every wallet's token."""
    return [
        partial(_charge_token, stage, wallet, stage.home_merchant(acquirer.id), stage.amount_minor())
        for acquirer in stage.population.acquirers
        for wallet in stage.wallets.values()
    ]


def _charge_token(stage: Stage, wallet: SimulatedWallet, merchant: Merchant, amount: int) -> list[Line]:
    line = attempt(
        stage.client,
        "tokens",
        wallet.person,
        merchant,
        lambda: stage.terminal_of(merchant).charge(wallet.payer_key(), amount),
        key=Key.TOKEN,
        expected_key=pb.KEY_KIND_TOKEN,
        amount_minor=amount,
    )
    return [line]


def faces(stage: Stage) -> list[Task]:
    """Every wallet's owner pays by face at the shops of two acquirers, all acquirers in turn."""
    shops = [stage.home_merchant(acquirer.id) for acquirer in stage.population.acquirers]
    return [
        partial(_show_face, stage, wallet, shops[row % len(shops)], shops[(row + 1) % len(shops)])
        for row, wallet in enumerate(stage.wallets.values())
    ]


def _show_face(stage: Stage, wallet: SimulatedWallet, first: Merchant, second: Merchant) -> list[Line]:
    """A portrait on paper does not pay; a face pays a small amount, and a larger one with the passcode only."""

    def look(
        scene: str, merchant: Merchant, amount: int, expected: str, *, passcode: bool = False, live: bool = True
    ) -> Line:
        def charge() -> pb.Payment:
            terminal = stage.terminal_of(merchant)
            capture = stage.camera.capture(wallet.person, merchant, terminal.id, amount, passcode=passcode, live=live)
            return terminal.charge_face(capture, amount)

        def captured() -> Line:
            return attempt(
                stage.client,
                scene,
                wallet.person,
                merchant,
                charge,
                key=Key.FACE if expected == SUCCEEDED else None,
                expected=expected,
                expected_key=pb.KEY_KIND_FACE,
                amount_minor=amount,
            )

        line = captured()
        for number in range(2, CAPTURES_MAX + 1):
            if not live or line.outcome not in CAPTURE_AGAIN:
                break
            line = replace(captured(), note=f"{number} captures")
        return line

    return [
        look("a portrait on paper", first, FACE_SMALL_MINOR, "FACE_NOT_LIVE", live=False),
        look("a face and a small amount", first, FACE_SMALL_MINOR, SUCCEEDED),
        look("a face and a larger amount", second, FACE_LARGE_MINOR, "FACE_NEEDS_PASSCODE"),
        look("a face, its passcode and a larger amount", second, FACE_LARGE_MINOR, SUCCEEDED, passcode=True),
    ]


def holds(stage: Stage) -> list[Task]:
    """Every acquirer's first shop sets an amount aside, takes a part of it, and frees another."""
    shops = [stage.home_merchant(acquirer.id) for acquirer in stage.population.acquirers]
    wallets = list(stage.wallets.values())
    return [
        partial(_hold, stage, wallets[number % len(wallets)], shop, stage.amount_minor())
        for number, shop in enumerate(shops)
    ]


def _hold(stage: Stage, wallet: SimulatedWallet, merchant: Merchant, amount: int) -> list[Line]:
    """As a hotel does: hold, then capture less; and hold, then void, after which nothing can be captured."""
    terminal = stage.terminal_of(merchant)

    def one(scene: str, pay: Callable[[], pb.Payment], expected: str, minor: int) -> Line:
        return attempt(stage.client, scene, wallet.person, merchant, pay, expected=expected, amount_minor=minor)

    def hold() -> Line:
        return one("a hold", lambda: terminal.hold(wallet.payer_key(), amount), HELD, amount)

    kept, freed = hold(), hold()
    part = amount // 2
    return [
        kept,
        one("a hold is captured in part", lambda: terminal.capture(kept.payment_id, part), SUCCEEDED, part),
        freed,
        one("a hold is voided", lambda: terminal.void(freed.payment_id), CANCELLED, amount),
        one("a capture after the void", lambda: terminal.capture(freed.payment_id), "PAYMENT_NOT_HELD", amount),
    ]
