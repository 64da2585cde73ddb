"""Locust itself, as a process: every user class pays, workers do not hang, and a server that stands still shows."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.deadlines import START_S, wait_until
from tests.gateway.test_kill import Gateway

# Importing Locust patches a whole process for gevent: here it is looked for only.
pytestmark = [
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("locust") is None, reason="the extra `load` is not installed"),
]

ROOT = Path(__file__).parents[2]
FILE = "loadtest/locust/locustfile.py"
PAYMENTS = {
    "pay by token",
    "pay a scanned merchant code",
    "pay by payment code",
    "pay by scanned code",
    "hold",
    "capture",
    "pay, to refund",
    "refund",
    "repeat",
    "pay the hot merchant",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("locust")


@pytest.fixture(scope="module")
def gateway(folder: Path) -> Iterator[Gateway]:
    gateway = Gateway(folder, "--wallets", "10")
    yield gateway
    gateway.stop()


def command(gateway: Gateway, folder: Path, *more: str, files: str = FILE) -> list[str]:
    return [
        *(sys.executable, "-m", "locust", "-f", files, "--host", gateway.target, "--data", str(folder)),
        *("--headless", "--json", "--stop-timeout", "20", *more),
    ]


def run(gateway: Gateway, folder: Path, *more: str, files: str = FILE) -> tuple[list[dict[str, Any]], str]:
    done = subprocess.run(
        command(gateway, folder, *more, files=files), cwd=ROOT, capture_output=True, text=True, timeout=START_S
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return report(done.stdout), done.stderr


def report(text: str) -> list[dict[str, Any]]:
    """What `--json` printed last: workers print reports of their own before, without an entry."""
    entries: list[dict[str, Any]] = json.loads(text[text.rfind("\n[\n") + 1 :])
    return entries


def counts(entries: list[dict[str, Any]]) -> dict[str, int]:
    assert sum(entry["num_failures"] for entry in entries if entry["name"] != "GetPayment") == 0
    return {entry["name"]: entry["num_requests"] for entry in entries}


def test_every_user_class_pays_and_the_books_agree(gateway: Gateway, folder: Path) -> None:
    classes = ("TokenUser", "ScanUser", "CodeUser", "BarcodeUser", "HoldUser", "RefundUser", "RepeatUser", "HotUser")
    entries, said = run(
        gateway, folder, *("-u", "16", "-r", "100", "-t", "8s", "--in-flight", "8", "--check"), *classes
    )
    seen = counts(entries)
    assert {name for name, number in seen.items() if number >= 100} >= PAYMENTS
    assert "conserved" in said


def test_a_mix_from_a_file_over_two_workers(gateway: Gateway, folder: Path, tmp_path: Path) -> None:
    mix = tmp_path / "mix.toml"
    mix.write_text("[mix]\ntoken = 3\nhot = 1\n")
    options = ("-u", "2", "-r", "10", "-t", "4s", "--processes", "2", "--in-flight", "10", "--mix", str(mix))
    entries, _ = run(gateway, folder, *options, "MixUser")
    seen = counts(entries)
    assert seen["pay the hot merchant"] > 50
    assert seen["pay by token"] / seen["pay the hot merchant"] == pytest.approx(3.0, abs=0.3)


def test_a_server_that_stands_still_for_a_second_shows_in_an_open_loop(gateway: Gateway, folder: Path) -> None:
    pid = int(json.loads((folder / "network.json").read_text())["pid"])
    options = ("-u", "2", "-r", "10", "-t", "6s", "--rate", "400", "TokenUser")
    with subprocess.Popen(
        command(gateway, folder, *options), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as locust:
        assert locust.stderr is not None
        started = threading.Event()

        def listen() -> None:
            for line in locust.stderr or ():
                if "All users spawned" in line:
                    started.set()

        listener = threading.Thread(target=listen)
        listener.start()
        assert started.wait(START_S)
        threading.Event().wait(1.0)
        os.kill(pid, signal.SIGSTOP)
        threading.Event().wait(1.0)
        os.kill(pid, signal.SIGCONT)
        assert locust.stdout is not None
        text = locust.stdout.read()
        locust.wait(START_S)
        listener.join(START_S)
    (entry,) = report(text)
    times = {float(took): count for took, count in entry["response_times"].items()}
    total, above = sum(times.values()), sum(count for took, count in times.items() if took >= 800)
    assert above >= total / 100, f"p99 is below 800 ms: {above} of {total}"


def test_the_knee_search_ends_by_itself(gateway: Gateway, folder: Path) -> None:
    shape = f"{FILE},loadtest/locust/shapes/knee.py"
    options = ("--rate-from", "50", "--rate-to", "130", "--rate-step", "1.5", "--stage-s", "2", "TokenUser")
    _, said = run(gateway, folder, *options, files=shape)
    assert '"knee_per_s"' in said


def test_a_wrong_host_ends_with_a_word_and_status_1() -> None:
    options = ("--host", "127.0.0.1:1", "--headless", "-u", "1", "-t", "5s", "TokenUser")
    done = subprocess.run(
        [sys.executable, "-m", "locust", "-f", FILE, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=START_S,
    )
    assert done.returncode == 1
    assert "nothing answers at 127.0.0.1:1" in done.stderr


def test_the_web_page_of_locust_answers(gateway: Gateway, folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [sys.executable, "-m", "locust", "-f", FILE, "--host", gateway.target, "--data", str(folder)]
    with subprocess.Popen([*arguments, "--web-port", str(port), "--web-host", "127.0.0.1"], cwd=ROOT) as locust:

        def page() -> bool:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                    return b"Locust" in answer.read()
            except OSError:
                return False

        try:
            wait_until(page, START_S)
        finally:
            locust.send_signal(signal.SIGINT)
            locust.wait(START_S)
