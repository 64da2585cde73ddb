"""The promise "byte for byte": what callers are answered, and what the journal keeps, is as it was.

A fixed run of the real engine (scripted.py) is compared with answers.txt and rows.txt. Whoever changes an answer or a
row on purpose accepts that with `make golden`, and commits the files with the change: `git diff` shows what changed.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import pytest

from tests.gateway.conftest import BOTH_JOURNALS, world_on
from tests.golden.scripted import Run, answers_text, ran, rows_text

HERE = Path(__file__).parent
ACCEPT = "HUTONG_GOLDEN"
"""Set to `accept` (as `make golden` does), the files are written anew instead of compared."""
SHOWN_MAX = 80
"""Lines of differences that a failing test shows."""


def compare(name: str, text: str) -> None:
    """Fails, and says what changed, unless a golden file has this text."""
    file = HERE / name
    if os.environ.get(ACCEPT) == "accept":
        file.write_text(text, encoding="utf-8")
        return
    before = file.read_text(encoding="utf-8")
    if before == text:
        return
    lines = list(difflib.unified_diff(before.splitlines(), text.splitlines(), "was", "is now", n=2, lineterm=""))
    more = [f"... and {len(lines) - SHOWN_MAX} more lines"] if len(lines) > SHOWN_MAX else []
    pytest.fail(
        "\n".join(
            [
                f"tests/golden/{name} is no longer what the gateway does:",
                *lines[:SHOWN_MAX],
                *more,
                "If this change is wanted, say so: run `make golden`, and commit the files under tests/golden with it.",
            ]
        ),
        pytrace=False,
    )


@pytest.fixture(params=BOTH_JOURNALS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:  # type: ignore[misc]
    with ran(world_on(request.param, request, tmp_path)) as run:
        yield run  # type: ignore[misc]


def test_answers_and_rows_are_as_they_were(run: Run) -> None:
    """On both journals: one pair of files for the two."""
    compare("answers.txt", answers_text(run))
    compare("rows.txt", rows_text(run.world))


def test_a_change_is_shown_and_how_to_accept_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ACCEPT, raising=False)
    text = (HERE / "rows.txt").read_text(encoding="utf-8")
    compare("rows.txt", text)
    with pytest.raises(pytest.fail.Exception) as failed:
        compare("rows.txt", text.replace("'acquirer-a'", "'acquirer-z'", 1))
    said = str(failed.value)
    assert "+  " in said
    assert "acquirer-z" in said
    assert "make golden" in said
