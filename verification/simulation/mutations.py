"""Planted bugs: patches applied to a copy of the packages, and the simulator sent after each.

A patch is a unified diff whose first line may be a comment (`# what is broken`). Its hunks are found by their own
lines, not by line numbers, so that they hold while the code around them moves; a hunk that does not occur exactly once
is an error.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import gateway
import hutong_contract
from hutong.gateway.v1 import payment_pb2

SEEDS_MAX: Final = 200
"""Seeds within which a planted bug must be found."""
RUN_S: Final = 600.0
_FILE: Final = re.compile(r"^\+\+\+ b/(\S+)")
_ONLY_SQLITE: Final = ("gateway/journal/sqlite", "gateway/journal/repeats")
_ONLY_POSTGRES: Final = ("gateway/journal/postgres", "gateway/journal/leases")
_PACKAGES: Final = ("contract", "facepay", "gateway", "tokenization", "verification")
_RUN: Final = """
import json, sys
from verification.simulation.run import open_runner
with open_runner(sys.argv[3]) as runner:
    for seed in range(int(sys.argv[1]), int(sys.argv[1]) + int(sys.argv[2])):
        violations = runner.play_seed(seed).violations
        if violations:
            print(json.dumps({"seed": seed, "rule": violations[0].rule, "text": violations[0].text}))
            break
    else:
        print("null")
"""


class PatchError(Exception):
    """A patch that does not fit the code it was written for."""


@dataclass(frozen=True, slots=True)
class Found:
    """The simulator's result for one planted bug."""

    name: str
    about: str
    seeds: int
    """Seeds that were run, the one that found it included."""
    rule: str = ""
    """The rule that was seen broken; empty: the bug was not found."""
    text: str = ""


def apply(patch: str, root: Path) -> None:
    """Applies a unified diff below `root`. Raises PatchError."""
    path: Path | None = None
    for head, before, after in _hunks(patch):
        path = root / head
        text = path.read_text(encoding="utf-8")
        if text.count(before) != 1:
            raise PatchError(f"a hunk occurs {text.count(before)} times in {head} instead of once:\n{before}")
        path.write_text(text.replace(before, after), encoding="utf-8")
    if path is None:
        raise PatchError("no hunk in it")


def _hunks(patch: str) -> Iterator[tuple[str, str, str]]:
    """(file, lines before, lines after) of each hunk."""
    path = ""
    before: list[str] = []
    after: list[str] = []
    for line in [*patch.splitlines(), "@@"]:
        if named := _FILE.match(line):
            path = named[1]
        elif line.startswith(("@@", "--- ")):
            if before or after:
                yield path, "".join(before), "".join(after)
            before, after = [], []
        elif line.startswith((" ", "-", "+")) or not line:
            kept = line[1:] + "\n"
            if not line.startswith("+"):
                before.append(kept)
            if not line.startswith("-"):
                after.append(kept)


def concerns(patch: str, *, postgres: bool) -> bool:
    """Whether a patch changes code that runs on this journal."""
    files = [named[1] for line in patch.splitlines() if (named := _FILE.match(line))]
    other = _ONLY_SQLITE if postgres else _ONLY_POSTGRES
    return not any(file.startswith(other) for file in files)


def about(patch: str) -> str:
    """What a patch breaks, in its author's words."""
    first = patch.partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def hunt(path: Path, *, first_seed: int = 0, seeds: int = SEEDS_MAX, url: str = "") -> Found:
    """Plants one bug in a copy of the packages and lets the simulator search for it, in a process of its own; on
    SQLite, or on the server at `url`."""
    patch = path.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="hutong-mutation-") as folder:
        root = Path(folder)
        _copy(root)
        apply(patch, root)
        done = subprocess.run(  # noqa: S603 - this interpreter, on the copy
            [sys.executable, "-c", _RUN, str(first_seed), str(seeds), url],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(root), str(root / "contract"), str(_generated())]),
                "PYTHONHASHSEED": "0",
            },
            cwd=root,
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )
    if done.returncode:
        raise PatchError(f"{path.name}: the simulator itself failed\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    if found is None:
        return Found(path.stem, about(patch), seeds)
    return Found(path.stem, about(patch), found["seed"] - first_seed + 1, found["rule"], found["text"])


def _copy(root: Path) -> None:
    source = Path(gateway.__file__).parent.parent
    assert Path(hutong_contract.__file__).parents[2] == source, "the packages lie side by side"
    for name in _PACKAGES:
        shutil.copytree(
            source / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.onnx", "*.npy", "*.npz")
        )


def _generated() -> Path:
    """The folder that holds the generated package `hutong`."""
    return Path(payment_pb2.__file__).parents[3]
