"""`hutong simulate`: the whole switch under every fault, from seeds; and planted bugs that it must find."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import click
from rich.progress import Progress

from command.options.formats import json_option
from command.printing.said import say_json
from command.printing.screen import Screen
from command.printing.verdict import failed
from sandbox.journals import JournalError
from verification.simulation.mutations import SEEDS_MAX, Found, PatchError, concerns, hunt
from verification.simulation.run import open_runner
from verification.simulation.seeds import play, server_url, shortest
from verification.simulation.summary import Summary

SEEDS_DEFAULT: Final = 50


@click.command()
@click.option("--seeds", type=click.IntRange(min=1), help=f"Runs; {SEEDS_DEFAULT} by default, 1 with --seed.")
@click.option("--seed", type=click.IntRange(min=0), help="The first seed, or the one to replay.")
@click.option(
    "--journal",
    default="sqlite",
    show_default=True,
    help="`sqlite`; `postgres`, which starts a server for the run; or the postgresql:// URL of a server, where the run "
    "makes a schema of its own and removes it.",
)
@click.option("--jobs", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes.")
@click.option("--trace", is_flag=True, help="Print everything that happens in the run of --seed.")
@click.option(
    "--mutations",
    type=click.Path(exists=True, path_type=Path),
    help="Plant the bug of each *.patch of this folder, or of this file, and look for it.",
)
@json_option
def simulate(
    seeds: int | None,
    seed: int | None,
    journal: str,
    jobs: int,
    trace: bool,
    mutations: Path | None,
    as_json: bool,
) -> None:
    """Run the whole switch through every fault, from seeds.

    The real engine, intake, router and journal run under a virtual clock against simulated callers, participants,
    links and disk. Each seed draws a workload and its faults: messages lost, delayed by hours, duplicated and
    reordered; participants that are down, slow, lie, or forget; crashes between any two steps, power cuts, a disk that
    fails or is full, clocks that leap; on PostgreSQL up to three engines on one journal, takeovers, connections that
    break in a commit, engines that stand still and find their lease taken. After each tick and at the end an
    independent account of what callers and participants saw is held against the gateway. A seed that fails is cut down
    to the shortest run found, which is printed; the same seed gives the same run again. Exit status 1 if anything is
    wrong.
    """
    if trace and (seed is None or seeds not in (None, 1) or mutations):
        raise click.UsageError("--trace prints one run: name it with --seed")
    try:
        with server_url(journal) as url:
            if mutations is not None:
                _hunt(mutations, seed or 0, seeds or SEEDS_MAX, url, as_json)
            elif trace and seed is not None:
                with open_runner(url) as runner:
                    click.echo("\n".join(runner.play_seed(seed, trace=True).trace))
            else:
                _run(seeds, seed, jobs, url, as_json)
    except JournalError as error:
        raise click.ClickException(str(error)) from error


def _run(seeds: int | None, seed: int | None, jobs: int, url: str, as_json: bool) -> None:
    first = seed or 0
    count = seeds or (SEEDS_DEFAULT if seed is None else 1)
    summary = Summary()
    began = time.monotonic()
    with Progress(console=Screen(stderr=True), transient=True) as progress:
        task = progress.add_task("seeds", total=count)
        for some in play(range(first, first + count), jobs, url):
            summary.merge(some)
            progress.update(task, advance=some.seeds, description=f"seeds, {len(summary.failures)} violations")
    seconds = time.monotonic() - began
    report = summary.as_json() | {
        "first_seed": first,
        "journal": "postgresql" if url else "sqlite",
        "seconds": round(seconds, 1),
        "cpu_seconds": round(summary.cpu_s, 1),
        "payments_per_s": round(summary.payments / seconds, 1),
        "payments_per_cpu_s": round(summary.payments / max(summary.cpu_s, 1e-9), 1),
        "jobs": jobs,
    }
    with Screen(stderr=True).status("") as status:
        least = shortest(summary, url, status.update)
    if as_json:
        say_json(report | ({"shortest": least} if least else {}))
    else:
        _print(report, summary, least)
    if summary.failures:
        failed("rules were broken", [f"seed {one.seed}: {one.rule}: {one.text}" for one in summary.failures])


def _print(report: dict[str, Any], summary: Summary, least: dict[str, Any] | None) -> None:
    console = Screen(soft_wrap=True)
    coverage = report["coverage"]
    console.print(
        f"{report['seeds']:,} seeds from {report['first_seed']} on {report['journal']}, {report['payments']:,} "
        f"payments and refunds in {report['seconds']:,.1f} s ({report['payments_per_s']:,.0f}/s; "
        f"{report['payments_per_cpu_s']:,.0f} for each second of a core)"
    )
    console.print("faults: " + ", ".join(f"{count:,} {kind}" for kind, count in report["faults"].items()))
    console.print(
        f"coverage: {coverage['states'][0]} of {coverage['states'][1]} states, "
        f"{coverage['transitions'][0]} of {coverage['transitions'][1]} transitions"
    )
    if summary.unreached:
        console.print(f"not reached: {', '.join(summary.unreached)}")
    if not summary.failures:
        console.print("[green]no violation[/]")
        return
    for violation in report["violations"]:
        console.print(f"[red]seed {violation['seed']}[/]: {violation['rule']}: {violation['text']}", highlight=False)
    if least:
        console.print(
            f"\nThe shortest run found of seed {least['seed']} (all of it: hutong simulate --seed "
            f"{least['seed']} --trace):",
            highlight=False,
        )
        for line in least["trace"]:
            click.echo(line)


def _hunt(path: Path, first_seed: int, seeds: int, url: str, as_json: bool) -> None:
    patches = sorted(path.glob("*.patch")) if path.is_dir() else [path]
    patches = [patch for patch in patches if concerns(patch.read_text(encoding="utf-8"), postgres=bool(url))]
    if not patches:
        raise click.UsageError(f"{path} holds no *.patch for this journal")
    hunted: list[Found] = []
    with Progress(console=Screen(stderr=True), transient=True) as progress:
        task = progress.add_task("planted bugs", total=len(patches))
        for patch in patches:
            progress.update(task, description=patch.stem)
            try:
                hunted.append(hunt(patch, first_seed=first_seed, seeds=seeds, url=url))
            except PatchError as error:
                raise click.ClickException(f"{patch.name}: {error}") from error
            progress.advance(task)
    missed = [found for found in hunted if not found.rule]
    if as_json:
        rows = [
            {"name": found.name, "about": found.about, "seeds": found.seeds, "rule": found.rule, "text": found.text}
            for found in hunted
        ]
        say_json({"mutations": len(hunted), "found": len(hunted) - len(missed), "by_mutation": rows})
    else:
        for found in hunted:
            verdict = f"found in run {found.seeds}: {found.rule}" if found.rule else "NOT FOUND"
            click.echo(f"{found.name}: {found.about}\n    {verdict}")
        click.echo(f"{len(hunted) - len(missed)} of {len(hunted)} planted bugs found, each within {seeds} seeds")
    if missed:
        failed("planted bugs were not found", [found.name for found in missed])
