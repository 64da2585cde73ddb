"""The quickstarts of docs/ do what they show: programs and commands are run as written, in order, in one shell.

Left out are the lines that set the machine up or start a network (one is running), and measurements that take long, of
which only the options are checked.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from command.main import main
from sandbox.network import Network
from sandbox.options import DEFAULT_LISTEN, NetworkOptions
from tests.deadlines import START_S

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("quickstart-*.md"))
SET_UP = ("make setup", ". .venv/bin/activate")
MEASUREMENTS = ("bench", "torture", "up")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "--- block"


@dataclass
class Block:
    """Commands, and what they print if the page shows it."""

    commands: str
    expected: str | None = None


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """As `hutong up --accounts` runs it, but for the port, which others may use."""
    with Network.start(NetworkOptions(data=tmp_path_factory.mktemp("network"), listen="127.0.0.1:0")) as started:
        yield started


def read(page: Path, folder: Path, target: str) -> list[Block]:
    """The commands of a page; its programs are saved where the page says."""
    text = page.read_text("utf-8")
    found: list[Block] = []
    for block in BLOCK.finditer(text):
        language, content = block[1], block[2]
        if language == "python":
            (name,) = re.findall(r"save this as\s+`([\w.]+)`", text[: block.start()], re.IGNORECASE)[-1:]
            assert DEFAULT_LISTEN in content
            (folder / name).write_text(content.replace(DEFAULT_LISTEN, target), encoding="utf-8")
        elif language == "sh":
            found.append(Block("\n".join(runnable(content))))
        else:
            assert language == "text", f"{page.name}: a block of {language} is not run"
            found[-1].expected = content
    return found


def runnable(commands: str) -> Iterator[str]:
    """The lines to run; of the others it is checked that the command exists and takes these options."""
    for line in commands.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["hutong"] and words[1] in MEASUREMENTS:
            command = main.get_command(click.Context(main), words[1])
            assert command is not None
            command.make_context(words[1], words[2:])
        elif not line.startswith(SET_UP):
            yield line


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_quickstart_does_what_it_shows(network: Network, page: Path, tmp_path: Path) -> None:
    blocks = read(page, tmp_path, network.target)
    (tmp_path / "data").symlink_to(network.data)
    script = "set -euo pipefail\n" + "".join(f"echo '{MARK}'\n{block.commands}\n" for block in blocks)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HUTONG_TARGET": network.target,
        "PYTHONWARNINGS": "error",
    }
    ran = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=3 * START_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = ran.stdout.split(f"{MARK}\n")[1:]
    assert len(said) == len(blocks)
    for block, output in zip(blocks, said, strict=True):
        if block.expected is not None:
            pattern = ".*".join(re.escape(part) for part in block.expected.split("…"))
            assert re.fullmatch(pattern, output, re.DOTALL), (
                f"{page.name} shows\n{block.expected}\nand there was\n{output}"
            )


def test_each_quickstart_is_run() -> None:
    assert [page.stem for page in PAGES] == ["quickstart-performance", "quickstart-terminal", "quickstart-wallet"]
