"""Plots of an evaluation as PNG, drawn with matplotlib (the `bench` extra)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from facepay.evaluation import EqualError, Pairs, interval, roc
from hutong_contract.extras import needs

SIZE_INCHES: Final = (7.5, 5.0)
DPI: Final = 120
BINS: Final = 60
HEADROOM: Final = 1.15
"""Of the histogram's height, for the words above it."""
_GENUINE, _IMPOSTOR, _INK = "#1f6f8b", "#c8553d", "#333333"
_STYLE: Final = {
    "font.size": 10,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.edgecolor": "#888888",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.fonttype": "none",
}


def _pyplot() -> Any:
    """matplotlib without a display. Raises MissingExtraError."""
    with needs("bench"):
        import matplotlib as mpl
    mpl.use("agg")
    import matplotlib.pyplot as plt

    return plt


def check() -> None:
    """Raises MissingExtraError where plots cannot be drawn, before anything takes long."""
    _pyplot()


def draw(folder: Path, both: Pairs, equal: EqualError | None, what: str) -> list[str]:
    """Writes `scores.png`, and `roc.png` where there are pairs of both kinds; returns the files. `what` says which
    models and pictures."""
    plt = _pyplot()
    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(_STYLE):
        files = [_scores(plt, folder / "scores.png", both, equal, what)]
        if equal is not None:
            files.append(_roc(plt, folder / "roc.png", both, equal, what))
    return files


def _scores(plt: Any, file: Path, both: Pairs, equal: EqualError | None, what: str) -> str:
    figure, axes = plt.subplots(figsize=SIZE_INCHES, layout="constrained")
    every = np.concatenate([both.genuine, both.impostor])
    edges = np.linspace(min(0.0, float(every.min())), max(1.0, float(every.max())), BINS + 1)
    kinds: Mapping[str, tuple[Any, str]] = {
        "impostor": (both.impostor, _IMPOSTOR),
        "genuine": (both.genuine, _GENUINE),
    }
    for name, (scores, colour) in kinds.items():
        if len(scores):
            label = f"{name}, {len(scores):,} pairs"
            axes.hist(scores, edges, density=True, color=colour, alpha=0.55, label=label)
    if equal is not None:
        axes.axvline(equal.threshold, color=_INK, linewidth=1, linestyle="--")
        axes.annotate(
            f" {_equal(equal)}\n at {equal.threshold:.3f}",
            (equal.threshold, 0.97),
            xycoords=("data", "axes fraction"),
            va="top",
            color=_INK,
        )
    axes.set(xlabel="cosine of two pictures", ylabel="density", title=f"Scores: {what}")
    axes.set_ylim(top=axes.get_ylim()[1] * HEADROOM)
    axes.legend(loc="upper left")
    figure.savefig(file, dpi=DPI)
    plt.close(figure)
    return str(file)


def _roc(plt: Any, file: Path, both: Pairs, equal: EqualError, what: str) -> str:
    figure, axes = plt.subplots(figsize=SIZE_INCHES, layout="constrained")
    curve = roc(both)
    low, high = interval(curve[:, 2], len(both.genuine))
    axes.fill_between(curve[:, 1], low, high, color=_GENUINE, alpha=0.2, linewidth=0, label="95 % limits, pair by pair")
    label = f"{len(both.genuine):,} genuine, {len(both.impostor):,} impostor pairs"
    axes.plot(curve[:, 1], curve[:, 2], color=_GENUINE, label=label)
    axes.plot([equal.rate], [1 - equal.rate], "o", color=_INK, markersize=4, label=_equal(equal))
    axes.set_xscale("log")
    # To where the pairs resolve: one impostor pair in all.
    axes.set_xlim(1 / len(both.impostor), 1.0)
    axes.xaxis.set_major_formatter(_percent)
    axes.xaxis.set_minor_formatter(lambda *_: "")
    axes.yaxis.set_major_formatter(_percent)
    axes.set(xlabel="false match rate", ylabel="true match rate", title=f"Receiver operating characteristic: {what}")
    axes.set_ylim(max(0.0, min(float(low.min()), 0.9) - 0.02), 1.005)
    axes.legend(loc="lower right")
    figure.savefig(file, dpi=DPI)
    plt.close(figure)
    return str(file)


def _equal(equal: EqualError) -> str:
    if equal.rate < equal.resolution:
        return f"equal error below {_percent(round(equal.resolution, 5))}"
    return f"equal error {_percent(round(equal.rate, 5))}"


def _percent(value: float, _: object = None) -> str:
    """A share as people write it: 0.01 %, 1 %, 95 %."""
    return f"{value * 100:.6g} %"
