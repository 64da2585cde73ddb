"""What README and docs/clients.md show does what they say: the Python is run as it stands, the commands one by one."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from command.main import main
from sandbox.network import Network
from sandbox.options import DEFAULT_LISTEN, NetworkOptions
from tests.deadlines import START_S

ROOT = Path(__file__).parents[2]
README, CLIENTS = ROOT / "README.md", ROOT / "docs" / "clients.md"
LONG = ("bench", "simulate", "torture", "up", "participants", "load")
"""Commands that run for minutes or until stopped: only their options are looked at."""
PAYMENT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
CODE = re.compile(r"6[67][0-9]{17}")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """As `hutong up --accounts` runs it, but for the port, which others may use."""
    with Network.start(NetworkOptions(data=tmp_path_factory.mktemp("data"), listen="127.0.0.1:0")) as started:
        yield started


def blocks(page: Path, language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```\n", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [text for word, text in fenced if word == language]


@pytest.mark.process
@pytest.mark.parametrize("page", [README, CLIENTS], ids=lambda page: page.name)
def test_the_python_example_pays_as_it_stands(network: Network, page: Path, tmp_path: Path) -> None:
    example = blocks(page, "python")[0]
    assert DEFAULT_LISTEN in example
    script = example.replace(DEFAULT_LISTEN, network.target)
    command = [sys.executable, "-W", "error", "-c", script]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "SUCCEEDED 12.50 CNY\n"


def commands(text: str) -> list[list[str]]:
    """The words of each `hutong` command of a block, without what is said of it."""
    lines = [line.split("  # ")[0].split("   #")[0] for line in text.replace(" \\\n", " ").splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("hutong ")]


PAGES = [(README, block) for block in blocks(README, "")] + [(CLIENTS, block) for block in blocks(CLIENTS, "")]


def test_the_documented_commands_do_what_they_say(network: Network) -> None:
    """In order, with what one prints in the place of TOKEN, CODE and ID of the next."""
    found = {"/tmp/hutong": str(network.data)}
    ran = 0
    for page, block in PAGES:
        for words in commands(block):
            if words[0] in LONG:
                check_options(words)
                continue
            given = [found.get(word, word) for word in words]
            result = CliRunner().invoke(main, given, env={"HUTONG_TARGET": network.target})
            assert result.exit_code == 0, f"{page.name}: hutong {shlex.join(words)}\n{result.output}"
            if words[:2] == ["token", "request"]:
                found["TOKEN"] = result.stdout.strip()
            elif words[0] == "pay":
                found["ID"] = PAYMENT.search(result.output)[0]  # type: ignore[index]
            elif code := CODE.search(result.output):
                found["CODE"] = code[0]
            ran += 1
    assert ran >= 15


def check_options(words: list[str]) -> None:
    """That a command exists and takes these options, without running it."""
    command = main.get_command(click.Context(main), words[0])
    assert command is not None, words
    command.make_context(words[0], words[1:])
