"""Plays the scenes and holds what everybody saw against everybody's books."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from clients.demo import everyday, trouble
from clients.demo.attempts import SUCCEEDED
from clients.demo.everyday import Task
from clients.demo.record import Line
from clients.demo.stage import Stage
from clients.demo.trouble import REFUND_SCENE

WORKERS: Final = 8
"""Things that happen at once."""

SCENES: Final[tuple[tuple[str, Callable[[Stage], list[Task]]], ...]] = (
    ("wallets scan merchants' codes", everyday.merchant_codes),
    ("terminals scan wallets' codes", everyday.wallet_codes),
    ("tokens on file", everyday.tokens),
    ("faces", everyday.faces),
    *trouble.SCENES,
)

Progress = Callable[[str, int, int], None]
"""Told the scene, how many of its tasks are done, and how many there are."""


def play(stage: Stage, progress: Progress = lambda *_: None) -> list[Line]:
    """Plays everything on a prepared stage. Raises clients.errors.CallError where the network does not answer."""
    lines: list[Line] = []
    with ThreadPoolExecutor(WORKERS) as workers:
        progress("wallets get tokens, codes and faces", 0, 1)
        stage.prepare(workers)
        for title, scene in SCENES:
            progress(title, 0, 1)
            tasks = scene(stage)
            for done, found in enumerate(workers.map(lambda task: task(), tasks), start=1):
                lines.extend(found)
                progress(title, done, len(tasks))
    return lines


def books_against_receipts(stage: Stage, lines: list[Line]) -> list[str]:
    """Whether each wallet's and merchant's balance moved by what its receipts add up to; says what differs."""
    moved: Counter[tuple[str, str]] = Counter()
    for line in lines:
        if line.outcome == SUCCEEDED:
            amount = -line.amount_minor if line.scene.startswith(REFUND_SCENE) else line.amount_minor
            moved[line.issuer_id, line.wallet_id] -= amount
            moved[line.acquirer_id, line.merchant_id] += amount
    differences = []
    for (participant, holder), balance in stage.balances().items():
        before = stage.opening[participant, holder] or 0
        expected = before + moved[participant, holder]
        if balance != expected:
            differences.append(f"{holder} at {participant} had {before} and has {balance}, not {expected}")
    return differences
