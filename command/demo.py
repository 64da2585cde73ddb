"""`hutong demo`: a network on a temporary folder, everybody paying everybody, trouble on purpose, all of it checked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from command.options.folders import NEW_FILE, data_option
from command.options.formats import json_option
from command.printing.demonstration import picture, show
from command.printing.said import say_json
from command.printing.screen import Screen
from command.printing.verdict import failed
from hutong_client.errors import CallError
from hutong_contract.errors import HutongError
from sandbox.demo.play import Progress as Tell
from sandbox.demo.run import run
from sandbox.network import NetworkError
from sandbox.options import NetworkOptions
from sandbox.places import PlaceError, check_empty

LISTEN: Final = "127.0.0.1:0"
SEED_DEFAULT: Final = 1
MERCHANTS_PER_ACQUIRER: Final = 1
"""With two terminals each: every terminal sees every wallet twice."""


@click.command()
@click.option("--seed", type=int, default=SEED_DEFAULT, show_default=True, help="Seed of people, shops and prices.")
@data_option("Keep the network here: a folder that is new or empty.", new=True)
@click.option("--picture", "svg", type=NEW_FILE, help="Also write the result as an SVG image.")
@json_option
def demo(seed: int, data: Path | None, svg: Path | None, *, as_json: bool) -> None:
    """Let every wallet pay every merchant, and check the books.

    Starts a network, plays the scenario through real PNG images and gRPC, and checks every expectation. Exits with 1 if
    anything is not as it should be.
    """
    try:
        with _folder(data) as folder, _telling() as tell:
            result = run(NetworkOptions(folder, seed, LISTEN, merchants_per_acquirer=MERCHANTS_PER_ACQUIRER), tell)
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
def _telling() -> Iterator[Tell]:
    """A progress display on standard error: the scene that is played, and how far it is."""
    columns = (SpinnerColumn(), TextColumn("{task.description:42}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Screen(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=1)

        def tell(scene: str, done: int, total: int) -> None:
            progress.update(task, description=scene, completed=done, total=total)

        yield tell
