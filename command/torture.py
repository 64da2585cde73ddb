"""`hutong torture`: real processes, killed again and again under load, and a record of everything acknowledged."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import click
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from command.options.folders import NEW_FOLDER
from command.options.formats import json_option
from command.printing.said import say_json
from command.printing.screen import Screen
from command.printing.verdict import failed
from verification.torture.disk import Disk, small_disk

DISK_BYTES: Final = 512 << 20
"""Of the small disk, at least; each minute adds MINUTE_BYTES for what it writes."""
MINUTE_BYTES: Final = 128 << 20


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0), default=2.0, show_default=True, help="How long to torture.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of what is done when, and of the load.")
@click.option(
    "--journal",
    type=click.Choice(["sqlite", "postgres"]),
    default="sqlite",
    show_default=True,
    help="Journal of the gateways; postgres starts a server for the run.",
)
@click.option(
    "--gateways", type=click.IntRange(1, 8), default=None, help="Default: 1 on SQLite, 2 on PostgreSQL, which share it."
)
@click.option("--kills", type=click.IntRange(min=0), default=1_000_000, help="End after so many; without it by time.")
@click.option("--callers", type=click.IntRange(1, 200), default=12, show_default=True, help="Threads that pay.")
@click.option(
    "--full-disk",
    type=click.Choice(["tmpfs", "limit"]),
    default=None,
    help="How a disk is made full: a small tmpfs of the run's own, or a limit on the size of the processes' files. "
    "Default: a tmpfs, where one may be mounted.",
)
@click.option(
    "--keep",
    type=NEW_FOLDER,
    help="Where journal, books, logs and record are kept where something is wrong. Default: hutong-torture-SEED.",
)
@json_option
def torture(
    minutes: float,
    seed: int,
    journal: str,
    gateways: int | None,
    kills: int,
    callers: int,
    full_disk: str | None,
    keep: Path | None,
    *,
    as_json: bool,
) -> None:
    """Kill real processes under load, and look for anything lost.

    Gateways, issuers and acquirers and PostgreSQL, each a process, are killed (kill -9), paused and denied disk space
    at random moments from one seed, and started again, while clients pay, refund, cancel and repeat. They keep a
    record of their own: afterwards everything acknowledged must be there, the same request must get the same answer,
    nothing may be in flight, and the books must agree. Exit status 1 if anything is wrong.
    """
    gateways = gateways or (2 if journal == "postgres" else 1)
    if journal == "sqlite" and gateways > 1:
        raise click.UsageError("several gateways share a journal on PostgreSQL only: --journal postgres")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: everything is ended
    folder = Path(tempfile.mkdtemp(prefix="hutong-torture-"))
    folder.chmod(0o755)  # as root the database runs as another user
    try:
        with ExitStack() as stack:
            disk = _disk(folder / "disk", minutes, full_disk)
            stack.callback(disk.close)
            options = {"seconds": minutes * 60, "seed": seed, "postgres": journal == "postgres", "gateways": gateways}
            options |= {"kills_max": kills, "callers": callers}
            report = _play(folder, disk, keep or Path(f"hutong-torture-{seed}"), options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if as_json:
        say_json(report)
    else:
        _print(report, Screen())
    if report["losses"] or report["findings"]:
        failed("something was lost, or does not agree", [*report["lost"], *report["findings"]])


def _disk(folder: Path, minutes: float, full_disk: str | None) -> Disk:
    folder.mkdir()
    mounted = None if full_disk is None else full_disk == "tmpfs"
    try:
        return small_disk(folder, DISK_BYTES + int(minutes * MINUTE_BYTES), mounted=mounted)
    except OSError as error:
        raise click.ClickException(f"no tmpfs can be mounted ({error}); use --full-disk limit") from None


def _play(folder: Path, disk: Disk, keep: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    # Only now: these begin threads, which would stay where the disk cannot be seen.
    from verification.torture.processes import TortureError
    from verification.torture.run import Run
    from verification.torture.scene import Options

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Screen(stderr=True), transient=True) as progress:
        task = progress.add_task("")
        run = Run(Options(folder, **options), disk, lambda text: progress.update(task, description=text))
        try:
            outcome = run.play()
        except TortureError as error:
            run.keep(keep)
            raise click.ClickException(f"{error} (all of it is in {keep})") from None
        report = {**outcome.report, "losses": outcome.losses.count, "lost": outcome.losses.sentences}
        report["findings"] = outcome.findings
        if not outcome.good:
            run.keep(keep)
            report["kept"] = str(keep)
            (keep / "report.json").write_text(json.dumps(report, indent=1))
    return report


def _print(report: dict[str, Any], console: Screen) -> None:
    kills = ", ".join(f"{count} {kind}" for kind, count in report["kills"].items() if kind != "total")
    pauses, cuts = sum(report["pauses"].values()), sum(report["cuts"].values())
    console.print(
        f"{report['kills']['total']} kills ({kills}), {pauses} pauses, {cuts} cut lines, "
        f"{report['full_disks']} full disks ({report['full_disk_by']}) in {report['seconds']:,.0f} s"
    )
    console.print(
        f"{report['payments']:,} payments and refunds, {report['acknowledged']:,} acknowledged as final, "
        f"{report['answers']:,} answers"
    )
    for what, name in (("first_payment", "first new payment"), ("settled", "all in flight settled")):
        times = report["recovery_s"][what]
        if times["count"]:
            console.print(f"from restart to {name}: p50 {times['p50']} s, max {times['max']} s")
    for sentence in (*report["lost"], *report["findings"]):
        console.print(f"[red]wrong[/]: {sentence}", highlight=False)
    if report["losses"] or report["findings"]:
        console.print(f"{report['losses']} losses; all of it is in {report['kept']}")
    else:
        console.print("[green]nothing lost[/]: every answer stands, every book agrees")
