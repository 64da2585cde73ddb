"""Plays the scenes, and compares the receipts with everybody's books."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from sandbox.demo import everyday, trouble
from sandbox.demo.attempts import SUCCEEDED
from sandbox.demo.everyday import Task
from sandbox.demo.record import Line
from sandbox.demo.stage import Stage
from sandbox.demo.trouble import REFUND_SCENE

WORKERS: Final = 8
"""Tasks that run at once."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A part of the demonstration."""

    title: str
    tasks: Callable[[Stage], list[Task]]
    """The tasks of the scene, which may run beside each other."""
    meanwhile: bool = False
    """Whether the scene takes long, so that the next ones do not wait for it."""


SCENES: Final = (
    Scene("wallets scan merchants' codes", everyday.merchant_codes),
    Scene("terminals scan wallets' codes", everyday.wallet_codes),
    Scene("tokens", everyday.tokens),
    Scene("faces", everyday.faces),
    Scene("amounts are held, captured and voided", everyday.holds),
    Scene("an answer is lost: unknown, then settled", trouble.answer_lost, meanwhile=True),
    Scene("refunds in parts, and one too many", trouble.refunds),
    Scene("a payer without enough money", trouble.decline),
    Scene("one code at two terminals", trouble.one_code_two_terminals),
    Scene("an acquirer refuses: failover", trouble.acquirer_refuses),
    Scene("an acquirer is down: failover", trouble.acquirer_down),
)
"""In the order in which they are played. `trouble` comes last, because it changes the acquirers' health at the
router."""

Progress = Callable[[str, int, int], None]
"""Receives the scene, the number of its finished tasks, and the number of all."""


def play(stage: Stage, progress: Progress = lambda *_: None) -> list[Line]:
    """Plays everything on a prepared stage. Raises hutong_client.errors.CallError where the network does not answer."""
    lines: list[Line] = []
    started: list[tuple[str, list[Future[list[Line]]]]] = []
    with ThreadPoolExecutor(WORKERS) as workers:
        progress("wallets get tokens, codes and faces", 0, 1)
        stage.prepare(workers)
        for scene in SCENES:
            progress(scene.title, 0, 1)
            tasks = [workers.submit(task) for task in scene.tasks(stage)]
            if scene.meanwhile:
                started.append((scene.title, tasks))
            else:
                lines.extend(_gather(scene.title, tasks, progress))
        for title, tasks in started:
            lines.extend(_gather(title, tasks, progress))
    return lines


def _gather(title: str, tasks: list[Future[list[Line]]], progress: Progress) -> list[Line]:
    lines: list[Line] = []
    for done, task in enumerate(tasks):
        progress(title, done, len(tasks))
        lines.extend(task.result())
    return lines


def books_against_receipts(stage: Stage, lines: list[Line]) -> list[str]:
    """The differences between the change of each wallet's and merchant's balance and the sum of its receipts."""
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
