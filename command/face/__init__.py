"""`hutong face`: enrol, identify, delete on a running network; bench, evaluate and liveness here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import click
from rich.table import Table

from command.options.folders import FILE, FOLDER, NEW_FOLDER, data_option
from command.options.formats import json_option
from command.options.groups import Group
from command.printing.progress import beginning
from command.printing.said import say_json
from command.printing.screen import Screen
from command.printing.verdict import failed, said_plainly


@click.group(cls=Group)
def face() -> None:
    """Enrol, identify and measure faces. Liveness is a simulation, uncertified."""


@face.command("bench")
@click.option("--n", "n", type=click.IntRange(1_000, 20_000_000), default=325_500, show_default=True, help="People.")
@click.option(
    "--engine",
    type=click.Choice(["sketch", "int8", "float", "milvus", "gpu"]),
    default="sketch",
    show_default=True,
    help="sketch: two-stage scan; int8: the same with matrix products for batches of strangers.",
)
@click.option(
    "--queries",
    type=click.IntRange(256, 1_000_000),
    help="Queries compared with the exact scan, four fifths of enrolled people; 38,000 bound misses below 1 in 10,000. "
    "Default: some 10,000.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the simulated people.")
@data_option("Where to put the files.")
@click.option("--grpc/--no-grpc", "grpc_too", default=None, help="Also over gRPC; default: up to 400,000 people.")
@json_option
def bench_command(
    n: int, engine: str, queries: int | None, seed: int, data: Path | None, grpc_too: bool | None, as_json: bool
) -> None:
    """Measure 1:N search beside an exact float scan in the same run."""
    from facepay.gallery.gpu import GpuUnavailable
    from facepay.gallery.milvus import MilvusUnavailable
    from loadtest.errors import BenchError
    from loadtest.faces import GRPC_N_MAX, bench
    from loadtest.faces_grpc import measure

    with said_plainly(GpuUnavailable, MilvusUnavailable, BenchError), beginning(quiet=as_json) as say:
        report = bench(n, engine, seed, data, say, queries)
        if engine in ("sketch", "int8") and (n <= GRPC_N_MAX if grpc_too is None else grpc_too):
            report.grpc_qps = measure(n, seed, data, say)
    show(report.as_json(), as_json, f"1:N search, {n:,} people, engine {engine}")


@face.command("evaluate")
@click.option(
    "--images",
    required=True,
    type=FOLDER,
    help="One folder a person.",
)
@click.option(
    "--models", "models_folder", required=True, type=click.Path(path_type=Path), help="Folder of ONNX models."
)
@click.option("--plots", type=NEW_FOLDER, help="Draw the scores and the ROC into this folder.")
@json_option
def evaluate_command(images: Path, models_folder: Path, plots: Path | None, as_json: bool) -> None:
    """Measure models on photographs: detection, quality, genuine and impostor scores, equal error, ROC, FNIR at FPIR.
    Exit status 1 where too few can be used for scores of both kinds."""
    from loadtest.errors import BenchError
    from loadtest.faces_evaluate import evaluate

    with said_plainly(BenchError), beginning(quiet=as_json) as say:
        result = evaluate(images, models_folder, plots, say)
    show(result, as_json, f"{images.name} with {result['models']}")
    if not result.get("equal_error"):
        failed("too few pictures can be used: there are no scores of both kinds")


@face.command("liveness")
@click.argument("images", nargs=-1, type=FILE)
@click.option("--models", "models_folder", type=click.Path(path_type=Path), help="Folder of ONNX models.")
@click.option(
    "--simulate", type=click.IntRange(1, 100_000), help="Report errors on so many simulated captures instead."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the simulated people.")
@json_option
def liveness_command(
    images: tuple[Path, ...], models_folder: Path | None, simulate: int | None, seed: int, as_json: bool
) -> None:
    """Look for presentation attacks in IMAGES, or report error rates on simulated ones. Uncertified."""
    from loadtest import faces_evaluate as face_evaluate
    from loadtest.errors import BenchError

    if simulate:
        with beginning(quiet=as_json) as say:
            show(face_evaluate.simulate(simulate, seed, say), as_json, "simulated captures, uncertified")
        return
    if not images or models_folder is None:
        raise click.UsageError("give IMAGES and --models DIR, or --simulate N")
    with said_plainly(BenchError):
        found = face_evaluate.look(images, models_folder)
    show(found, as_json, "liveness: simulation, uncertified")


@face.command("open-set")
@click.option("--n", "n", type=click.IntRange(1_000, 10_000_000), default=325_500, show_default=True, help="Enrolled.")
@click.option("--strangers", type=click.IntRange(100), default=30_000, show_default=True, help="Probes of strangers.")
@click.option("--mated", type=click.IntRange(100), default=10_000, show_default=True, help="Probes of the enrolled.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the simulated people.")
@json_option
def open_set_command(n: int, strangers: int, mated: int, seed: int, as_json: bool) -> None:
    """Measure FNIR and FPIR, with confidence limits, on simulated people whom the threshold was not fitted on."""
    from loadtest.faces_openset import measure

    with beginning(quiet=as_json) as say:
        show(measure(n, strangers, mated, seed, say), as_json, "open set, before the passcode")


def show(result: Mapping[str, object], as_json: bool, title: str) -> None:
    """Prints a result for machines or people."""
    if as_json:
        say_json(result)
        return
    table = Table("figure", "value", title=title)
    for name, value in result.items():
        if name != "roc":
            table.add_row(name, json.dumps(value) if isinstance(value, dict | list) else str(value))
    Screen().print(table)


def _network() -> None:
    from command.face import network as face_network

    for command in face_network.COMMANDS:
        face.add_command(command)


_network()
