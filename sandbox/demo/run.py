"""The whole demonstration on a network of its own: plays, settles and checks."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from sandbox.checking import check_folder
from sandbox.demo.camera import TerminalCamera
from sandbox.demo.play import Progress, books_against_receipts, play
from sandbox.demo.result import Result
from sandbox.demo.stage import Props, Stage
from sandbox.network import Network
from sandbox.optics import GatewaySymbols, MerchantPrinter
from sandbox.options import NetworkOptions
from sandbox.settlement import FolderDesk


def run(options: NetworkOptions, tell: Progress = lambda *_: None) -> Result:
    """Plays the scenario on a network of its own, created in the empty folder `options.data`. `tell` is called with the
    scene that is played, and how many of its tasks are done of how many. Raises NetworkError if the network cannot run;
    HutongError or CallError if it does not answer as it must."""
    start = time.monotonic()
    folder, seed = options.data, options.seed
    tell("the network starts", 0, 1)
    with Network.start(options) as network:
        stage = Stage(
            Props(
                target=network.target,
                population=network.population,
                participants=network.participants,
                folder=folder / "images",
                symbols=GatewaySymbols(),
                printer=MerchantPrinter(),
                camera=lambda client: TerminalCamera(
                    client,
                    seed,
                    len(network.population.wallets),
                    now_us,
                    waiting=lambda left_s: tell(f"face search is loaded, once, {left_s:.0f} s", 0, 1),
                ),
                clock_us=now_us,
            )
        )
        try:
            lines = play(stage, tell)
            differences = books_against_receipts(stage, lines)
        finally:
            stage.close()
    tell("a settlement window is closed", 0, 1)
    settlement = _settle(folder)
    tell("the books are checked", 0, 1)
    checked = check_folder(folder)
    if checked.in_flight:
        checked.find(f"{checked.in_flight} payments are still in flight")
    return Result(
        population=network.population,
        lines=lines,
        differences=differences,
        conserved=checked.conserved,
        conservation=checked.findings or [CONSERVED.format(payments=checked.payments, postings=checked.postings)],
        seconds=time.monotonic() - start,
        settlement=settlement,
    )


def _settle(folder: Path) -> list[tuple[str, str, int]]:
    """Closes the window with all payments, and returns each participant's net position."""
    with ExitStack() as stack:
        desk = FolderDesk(folder, "", stack)
        positions = desk.positions(desk.close_window(1), lambda *_: None)
        return [(one.participant, one.currency, one.net_minor) for one in positions]


CONSERVED: Final = (
    "{payments} payments and refunds in the journal, declined ones included: {postings} postings sum to zero, "
    "none is left in flight, and every participant's books agree"
)


def now_us() -> int:
    """UTC in microseconds."""
    return time.time_ns() // 1_000
