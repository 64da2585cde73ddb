"""A small `hutong torture`: nothing is lost or left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.process

COMMAND = [sys.executable, "-m", "command.main", "torture", "--json"]
LIMIT_S = 170.0


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Everything that the run makes goes below `folder`, and every process of it has that in its environment."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TMPDIR": str(folder)}
    command = [*COMMAND, "--keep", str(folder / "kept"), *options]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def left_of(folder: Path) -> list[str]:
    """What still runs of a run."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("TMPDIR", "").startswith(str(folder)):
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
        except psutil.Error:
            continue
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not below pytest's own folder: that is its owner's alone, and as root the database runs as another user."""
    with tempfile.TemporaryDirectory(prefix="hutong-tortured-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_kills_lose_nothing(folder: Path) -> None:
    # On SQLite: tests/gateway/journal kills engines on PostgreSQL, and two gateways there take the command a minute.
    run = start(folder, "--kills", "3", "--minutes", "1", "--callers", "4", "--seed", "3")
    said, errors = run.communicate(timeout=LIMIT_S)
    assert run.returncode == 0, errors + said
    report = json.loads(said)
    assert (report["losses"], report["findings"], report["conserved"]) == (0, [], True)
    assert report["kills"]["total"] >= 3
    assert report["acknowledged"] > 50
    assert report["recovery_s"]["first_payment"]["count"] >= 1
    assert left_of(folder) == []
    assert list(folder.iterdir()) == []


def test_ctrl_c_leaves_nothing_behind(folder: Path) -> None:
    run = start(folder, "--minutes", "5")
    while run.poll() is None and not list(folder.glob("hutong-torture-*/record.jsonl")):
        threading.Event().wait(0.05)
    assert len(left_of(folder)) > 9  # participants, a gateway, the load
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=LIMIT_S)
    assert run.returncode == 1, errors
    assert left_of(folder) == []
    assert list(folder.iterdir()) == []
    mounts = Path("/proc/self/mounts")
    assert not mounts.exists() or str(folder) not in mounts.read_text()
