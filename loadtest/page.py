"""A load report as one HTML file that needs no network: figures, a table of stages, curves drawn as SVG. Pure."""

from __future__ import annotations

import html
import math
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

WIDTH: Final = 640
HEIGHT: Final = 240
MARGIN: Final = 48
CPU_WARNING: Final = 0.7
"""Share of its cores from which a generator may have measured itself."""
QUEUE_WARNING: Final = 0.02
"""Share of waits for a core from which the machine, not the gateway, was measured."""

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2430; --dim: #5c6675; --line: #d9dee6; --back: #fbfcfd; --one: #1d6fb8;
  --two: #b5482a; --warn: #8a5a00 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --dim: #9aa5b4; --line: #333c49; --back: #14181f;
  --one: #6db3f2; --two: #f0906f; --warn: #e0b050 } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); margin: 0 auto;
  max-width: 60rem; padding: 1.5rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
p.sub { color: var(--dim); margin: .25rem 0 1.5rem } .warn { color: var(--warn) }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 1rem; margin: 0 }
dt { color: var(--dim); font-size: .85rem } dd { margin: 0; font-size: 1.4rem; font-variant-numeric: tabular-nums }
.wide { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap }
th:first-child, td:first-child { text-align: left } th { color: var(--dim); font-weight: 500; font-size: .85rem }
svg { width: 100%; height: auto } svg text { fill: var(--dim); font-size: 11px } .axis { stroke: var(--line) }
.one { stroke: var(--one); fill: none; stroke-width: 2 } .two { stroke: var(--two); fill: none; stroke-width: 2 }
.dot1 { fill: var(--one) } .dot2 { fill: var(--two) } .key1 { color: var(--one) } .key2 { color: var(--two) }
"""


def page(report: dict[str, Any]) -> str:
    """The HTML of a report as `hutong load --json` gives it."""
    stages = report["stages"]
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        f"<title>Load: {_text(report['scenario'])}</title><style>{_STYLE}</style></head><body>",
        f"<h1>Load: {_text(report['scenario'])}</h1>",
        f"<p class=sub>{_text(report['target'])} · {_text(machine())}</p>",
        _warnings(report),
        _figures(report),
    ]
    if len(stages) > 1:
        offered = [stage["offered_per_s"] for stage in stages]
        parts += [
            "<h2>Done and offered</h2><p class=sub><span class=key1>●</span> operations a second that ended as asked, "
            "<span class=key2>●</span> offered</p>",
            _chart(offered, [stage["goodput_per_s"] for stage in stages], offered, "offered a second"),
            "<h2>Latency</h2><p class=sub>p99 in milliseconds, <span class=key1>●</span> from when calls were due, "
            "<span class=key2>●</span> from when they were sent</p>",
            _chart(
                offered,
                [stage["latency_from_due_ms"].get("p99", 0.0) for stage in stages],
                [stage["latency_from_send_ms"].get("p99", 0.0) for stage in stages],
                "offered a second",
            ),
        ]
    parts += [
        "<h2>Stages</h2>",
        _table(
            ["offered/s", "done/s", "p50", "p99", "p99.9", "p99.99", "missed", "generator CPU"],
            [
                [
                    f"{stage['offered_per_s']:,.0f}",
                    f"{stage['goodput_per_s']:,.0f}",
                    *(f"{stage['latency_from_due_ms'].get(name, 0):,.1f} ms" for name in _NAMES),
                    f"{stage['missed']:,}",
                    f"{stage['generator_cpu_share']:.0%}",
                ]
                for stage in stages
            ],
        ),
        "<h2>Calls</h2>",
        _table(["what", "calls"], [[name, f"{count:,}"] for name, count in report["lines"].items()]),
    ]
    if report["refusals"]:
        parts += [
            "<h2>Not done, by reason</h2>",
            _table(["reason", "calls"], [[name, f"{count:,}"] for name, count in report["refusals"].items()]),
        ]
    return "".join([*parts, "</body></html>\n"])


_NAMES: Final = ("p50", "p99", "p99.9", "p99.99")


def machine() -> str:
    """Where a report was made: system, processor, versions."""
    try:
        own = version("hutong")
    except PackageNotFoundError:
        own = "?"
    return f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, hutong {own}"


def _warnings(report: dict[str, Any]) -> str:
    said = []
    if report["connection_lost"]:
        said.append(f"The connection was lost: {report['connection_lost']}. What follows is what was seen until then.")
    if report["interrupted"]:
        said.append("The run was interrupted; what follows is what was seen until then.")
    if report["missed"]:
        said.append(f"{report['missed']:,} calls were due and never made, since too many had no answer.")
    if any(stage["generator_cpu_share"] > CPU_WARNING for stage in report["stages"]):
        said.append("The generator used most of its core in a stage: it may have measured itself.")
    if (report["runqueue_wait_share"] or 0) > QUEUE_WARNING:
        said.append(
            f"The gateway waited {report['runqueue_wait_share']:.1%} of the time for a core: latencies are partly the "
            "machine's."
        )
    if report.get("conserved") is False:
        said.append("NOT CONSERVED: the check found money lost or made. See `hutong check`.")
    return "".join(f"<p class=warn>{_text(one)}</p>" for one in said)


def _figures(report: dict[str, Any]) -> str:
    due = report["latency_from_due_ms"]
    figures = [
        ("offered", f"{report['offered_per_s']:,.0f}/s"),
        ("done", f"{report['goodput_per_s']:,.0f}/s"),
        ("p50 from due", f"{due.get('p50', 0):,.1f} ms"),
        ("p99 from due", f"{due.get('p99', 0):,.1f} ms"),
        ("p99.99 from due", f"{due.get('p99.99', 0):,.1f} ms"),
    ]
    if "knee_per_s" in report:
        figures.append(("knee", f"{report['knee_per_s']:,.0f}/s"))
        figures.append(("within the objective", f"{report['slo_per_s']:,.0f}/s"))
        if report["usl"]:
            figures.append(("R² of the curve", f"{report['usl']['r2']:.2f}"))
    if report.get("conserved") is not None:
        figures.append(("money", "conserved" if report["conserved"] else "NOT conserved"))
    shown = (f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in figures)
    return f"<dl>{''.join(shown)}</dl>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{_text(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=wide><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def _chart(x: Sequence[float], one: Sequence[float], two: Sequence[float], label: str) -> str:
    """Two curves over the same values."""
    right, top = _round_up(max(x)), _round_up(max(*one, *two))

    def at(value: float, height: float) -> tuple[float, float]:
        return (
            MARGIN + value / right * (WIDTH - 2 * MARGIN),
            HEIGHT - MARGIN - height / top * (HEIGHT - 2 * MARGIN),
        )

    def curve(values: Sequence[float], name: str, dot: str) -> str:
        points = [at(*pair) for pair in zip(x, values, strict=True)]
        line = " ".join(f"{left:.1f},{up:.1f}" for left, up in points)
        dots = "".join(f'<circle class={dot} cx="{left:.1f}" cy="{up:.1f}" r="3"/>' for left, up in points)
        return f'<polyline class={name} points="{line}"/>{dots}'

    grid = ""
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        left, up = at(right * part, top * part)
        grid += f'<line class=axis x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{up:.1f}" y2="{up:.1f}"/>'
        grid += f'<text x="{MARGIN - 6}" y="{up + 4:.1f}" text-anchor=end>{_short(top * part)}</text>'
        grid += f'<text x="{left:.1f}" y="{HEIGHT - MARGIN + 18}" text-anchor=middle>{_short(right * part)}</text>'
    name = f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - 6}" text-anchor=end>{_text(label)}</text>'
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role=img aria-label="{_text(label)}">{grid}{name}'
        f"{curve(two, 'two', 'dot2')}{curve(one, 'one', 'dot1')}</svg>"
    )


def _round_up(value: float) -> float:
    """The next number of which quarters are short to write."""
    if value <= 0:
        return 1.0
    ten = 10.0 ** math.floor(math.log10(value))
    return next(ten * part for part in (1, 2, 4, 6, 8, 10) if ten * part >= value)


def _short(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:,.0f}k"
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)
