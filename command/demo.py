"""`hutong demo`: a network on a temporary folder, everybody paying everybody, trouble on purpose, all of it checked."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from command.options.settlement import FolderDesk
from command.printing.verdict import failed
from hutong_client.errors import CallError
from hutong_contract.errors import HutongError
from sandbox.checking import check_folder
from sandbox.demo.camera import TerminalCamera
from sandbox.demo.play import Progress as Tell
from sandbox.demo.play import books_against_receipts, play
from sandbox.demo.report import Result, picture, show
from sandbox.demo.stage import Props, Stage
from sandbox.network import Network, NetworkError, NetworkOptions
from sandbox.optics import GatewaySymbols, MerchantPrinter
from sandbox.places import PlaceError, check_empty
from sandbox.said import say_json
from sandbox.screen import Screen

LISTEN: Final = "127.0.0.1:0"
SEED_DEFAULT: Final = 1
MERCHANTS_PER_ACQUIRER: Final = 1
"""With two terminals each: every terminal sees every wallet twice."""


@click.command()
@click.option("--seed", type=int, default=SEED_DEFAULT, show_default=True, help="Seed of people, shops and prices.")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the network here: a folder that is new or empty.",
)
@click.option(
    "--picture", "svg", type=click.Path(dir_okay=False, path_type=Path), help="Also write the result as an SVG image."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def demo(seed: int, data: Path | None, svg: Path | None, *, as_json: bool) -> None:
    """Let every wallet pay every merchant, and check the books.

    Starts a network, plays the scenario through real PNG images and gRPC, and checks every expectation. Exits with 1 if
    anything is not as it should be.
    """
    try:
        with _folder(data) as folder:
            result = run(folder, seed, Screen(stderr=True), merchants_per_acquirer=MERCHANTS_PER_ACQUIRER)
    except NetworkError as error:
        raise click.ClickException(str(error)) from None
    except (CallError, HutongError) as error:
        raise click.ClickException(f"the network did not answer as it must: {error}") from None
    if as_json:
        say_json(result.as_json())
    else:
        show(result, Screen())
    if svg is not None:
        picture(result, svg)
    if not result.ok:
        failed("not everything came out as it should", result.failures)


def run(folder: Path, seed: int, console: Screen, **options: int) -> Result:
    """Plays the scenario on a network in `folder`; `options` are further fields of NetworkOptions."""
    start = time.monotonic()
    with _telling(console) as tell:
        tell("the network starts", 0, 1)
        with Network.start(NetworkOptions(data=folder, seed=seed, listen=LISTEN, **options)) as network:  # type: ignore[arg-type]
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
    """Closes the window that takes everything: each participant's net position in it."""
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


@contextmanager
def _folder(data: Path | None) -> Iterator[Path]:
    if data is not None:
        try:
            check_empty(data)
        except PlaceError as error:
            raise click.UsageError(str(error)) from None
        yield data
        return
    with tempfile.TemporaryDirectory(prefix="hutong-demo-") as folder:
        yield Path(folder)


@contextmanager
def _telling(console: Screen) -> Iterator[Tell]:
    """A progress display on standard error: the scene that is played, and how far it is."""
    columns = (SpinnerColumn(), TextColumn("{task.description:42}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("", total=1)

        def tell(scene: str, done: int, total: int) -> None:
            progress.update(task, description=scene, completed=done, total=total)

        yield tell
