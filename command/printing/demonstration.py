"""The demonstration's result for a person: the matrix of who paid whom, latencies, trouble on purpose, checks."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from command.printing.screen import Screen
from hutong_client.wording import money
from sandbox.demo.attempts import SUCCEEDED
from sandbox.demo.record import EVERYWHERE, KEY_TEXTS, Key, Line, percentile_us
from sandbox.demo.result import Result

WIDTH: Final = 112
"""Columns of the picture."""
REMOTE_FONT: Final = re.compile(r"@font-face \{[^}]*\}\s*")
"""Fonts that a picture would load from elsewhere; it falls back to any monospaced one."""
NETS_IN_A_ROW: Final = 3
FAILURES_SHOWN: Final = 12
COLOURS: Final = {
    Key.STATIC: "bright_green",
    Key.DYNAMIC: "green",
    Key.QR: "bright_cyan",
    Key.CODE_128: "cyan",
    Key.TOKEN: "bright_magenta",
    Key.FACE: "bright_yellow",
}


def show(result: Result, console: Screen) -> None:
    """Prints the whole result; cells hold latencies too where the console is wide enough."""
    wide = console.width >= WIDTH
    parts: list[RenderableType] = [
        _matrix(result, wide=wide),
        _latencies(result.lines),
        _events(result.lines),
        *([_settlement(result)] if result.settlement else []),
        _verdict(result),
    ]
    console.print(
        Panel(
            Group(*(Padding(part, (0, 0, 1, 0)) for part in parts[:-1]), parts[-1]),
            title=f"[bold]Hutong[/] 互通  every wallet pays every merchant  [dim]seed {result.population.seed}",
            title_align="left",
            border_style="green" if result.ok else "red",
        )
    )


def picture(result: Result, path: Path) -> None:
    """Writes the result as an SVG image."""
    console = Screen(
        record=True,
        width=WIDTH,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
    )
    show(result, console)
    svg = console.export_svg(title="hutong demo")
    path.write_text(REMOTE_FONT.sub("", svg), encoding="utf-8")


def _matrix(result: Result, *, wide: bool) -> Table:
    """Wallets down, acquirers across; a letter for each key that paid, and the median latency of them."""
    table = Table(box=None, padding=(0, 0, 0, 1), header_style="bold", expand=wide)
    table.add_column("payer", no_wrap=True)
    table.add_column("issuer", style="dim", no_wrap=True)
    for acquirer in result.population.acquirers:
        table.add_column(
            f"{acquirer.name}\n[dim]{acquirer.id}" if wide else acquirer.id, justify="center", no_wrap=True
        )
    done: dict[tuple[str, str], dict[Key, list[int]]] = {}
    for line in result.lines:
        if line.ok and line.key:
            done.setdefault((line.wallet_id, line.acquirer_id), {}).setdefault(line.key, []).append(line.latency_us)
    for wallet in result.population.wallets:
        paid = [done.get((wallet.id, acquirer.id), {}) for acquirer in result.population.acquirers]
        table.add_row(wallet.name, wallet.issuer_id, *(_cell(one, wide=wide) for one in paid))
    return table


def _cell(paid: Mapping[Key, Sequence[int]], *, wide: bool) -> Text:
    cell = Text()
    for key in Key:
        needed = key in EVERYWHERE
        cell.append(key.value if key in paid else "✗" if needed else "·", _style(key, key in paid, needed))
    if wide:
        times = list(itertools.chain.from_iterable(paid.values()))
        cell.append(f"{percentile_us(times, 0.5) / 1_000:4.0f} ms", "dim")
    return cell


def _style(key: Key, paid: bool, needed: bool) -> str:
    if paid:
        return f"bold {COLOURS[key]}"
    return "bold red" if needed else "dim"


def _latencies(lines: Sequence[Line]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="bold", expand=True)
    table.add_column("key")
    table.add_column("which is", ratio=1)
    for name in ("paid", "p50", "p99", "slowest"):
        table.add_column(name, justify="right")
    for key, text in KEY_TEXTS.items():
        times = [line.latency_us for line in lines if line.key is key and line.ok]
        figures = [f"{percentile_us(times, share) / 1_000:.1f} ms" for share in (0.5, 0.99, 1.0)]
        table.add_row(Text(key.value, f"bold {COLOURS[key]}"), text, str(len(times)), *figures)
    return table


def _events(lines: Sequence[Line]) -> Table:
    """The scenes outside the matrix: one row for each scene and outcome."""
    table = Table(box=None, padding=(0, 1), header_style="bold", expand=True)
    table.add_column("on purpose")
    table.add_column("came to", no_wrap=True)
    table.add_column("×", justify="right")
    table.add_column("", ratio=1)
    groups: dict[tuple[str, str, bool], list[Line]] = {}
    for line in lines:
        if not line.key:
            groups.setdefault((line.scene, line.outcome, line.ok), []).append(line)
    for (scene, outcome, ok), group in groups.items():
        mark = Text("✓ " if ok else "✗ ", "bold green" if ok else "bold red")
        remark = group[0].note if ok else group[0].wrong or f"expected {group[0].expected}"
        table.add_row(mark.append(scene, "default"), outcome, str(len(group)), Text(remark, "dim"))
    return table


def _settlement(result: Result) -> Group:
    """Who pays and who receives when the window is settled."""
    table = Table.grid(padding=(0, 2))
    for _ in range(NETS_IN_A_ROW):
        table.add_column(style="dim")
        table.add_column(justify="right")
    nets = sorted(result.settlement, key=lambda one: (one[1], one[0]))
    for start in range(0, len(nets), NETS_IN_A_ROW):
        cells: list[Text] = []
        for participant, currency, net in nets[start : start + NETS_IN_A_ROW]:
            cells += [Text(participant), Text(money(net, currency), "red" if net < 0 else "green")]
        table.add_row(*cells)
    return Group(Text("net positions after settlement", "bold"), table)


def _verdict(result: Result) -> Text:
    text = Text()
    for statement in result.conservation:
        text.append("✓ " if result.conserved else "✗ ", "bold green" if result.conserved else "bold red")
        text.append(f"{statement}\n")
    if not result.differences:
        text.append("✓ ", "bold green")
        text.append("every balance at every issuer and acquirer is what the receipts add up to\n")
    for failure in result.failures[:FAILURES_SHOWN]:
        text.append("✗ ", "bold red")
        text.append(f"{failure}\n")
    if len(result.failures) > FAILURES_SHOWN:
        text.append(f"and {len(result.failures) - FAILURES_SHOWN} more; --json shows all\n", "red")
    paid = sum(line.outcome == SUCCEEDED for line in result.lines)
    text.append(f"{paid} payments and refunds in {result.seconds:.1f} s; ", "bold")
    text.append(
        "all as it should be" if result.ok else "not as it should be", "bold green" if result.ok else "bold red"
    )
    return text
