"""Every file of `deploy/` is started, or checked by its own tool; every documented command has the options it shows."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from command.main import main
from hutong_contract.confinement import OPEN_FILES_WANTED
from tests.deadlines import START_S, wait_until

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted(DEPLOY.glob("*.yaml"))
UNIT = DEPLOY / "hutong.service"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(DEPLOY.glob("*.md"))]
DRAIN_S = 10.0
BUILT_IN = {"wal_compression": ("lz4", "zstd")}
"""Values that a server takes only where it was built with them, as the image's is and the one for tests is not."""


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(UNIT.read_text("utf-8"))
    return parser


def exec_start() -> list[str]:
    return shlex.split(unit()["Service"]["ExecStart"])


def test_every_file_is_checked_here() -> None:
    """A file of a new kind needs a check of its own."""
    known = {*MANIFESTS, UNIT, *DEPLOY.glob("*.md")}
    assert [path.name for path in DEPLOY.iterdir() if path not in known] == []


# -- systemd ---------------------------------------------------------------------------------------------------


def test_the_unit_keeps_what_the_gateway_holds_to_itself() -> None:
    """The same as the gateway does itself at start, for what happens before it."""
    service = unit()["Service"]
    kept = {name: service[name] for name in ("UMask", "LimitCORE", "LimitNOFILE", "StateDirectoryMode")}
    assert kept == {
        "UMask": "0077",
        "LimitCORE": "0",
        "LimitNOFILE": str(OPEN_FILES_WANTED),
        "StateDirectoryMode": "0700",
    }


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("there is no systemd-analyze here")
    text = UNIT.read_text("utf-8").replace(exec_start()[0], shutil.which("true") or "/bin/true")
    (tmp_path / UNIT.name).write_text(text, "utf-8")
    ran = subprocess.run(
        [tool, "verify", "--man=no", str(tmp_path / UNIT.name)],
        capture_output=True, text=True, check=False, timeout=START_S,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.process
def test_what_the_unit_starts_comes_up_and_ends_as_systemd_ends_it(tmp_path: Path) -> None:
    binary, *words = exec_start()
    assert Path(binary).name == "hutong"
    given = ["127.0.0.1:0" if word == "127.0.0.1:50050" else word for word in words]
    given = [word.replace("/var/lib/hutong", str(tmp_path / "data")) for word in given]
    assert given != words
    service = unit()["Service"]
    assert service["StateDirectory"] == "hutong"  # which is /var/lib/hutong
    assert float(service["TimeoutStopSec"]) > DRAIN_S
    process = subprocess.Popen(
        [sys.executable, "-m", "command.main", *given], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        announced = tmp_path / "data" / "network.json"
        wait_until(lambda: process.poll() is not None or announced.exists(), START_S)
        assert process.poll() is None, process.stderr.read().decode()  # type: ignore[union-attr]
        process.send_signal(signal.Signals[service["KillSignal"]])
        assert process.wait(START_S) == 0
    finally:
        process.kill()
        process.communicate()
    assert json.loads(announced.read_text())["target"].startswith("127.0.0.1:")


# -- container manifests ---------------------------------------------------------------------------------------


def manifest(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return found


def command_of(service: dict[str, Any]) -> list[str]:
    command = service.get("command", [])
    return shlex.split(command) if isinstance(command, str) else [str(word) for word in command]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_manifest_names_only_what_it_has(path: Path) -> None:
    found = manifest(path)
    services = found["services"]
    assert set(found) - {one for one in found if one.startswith("x-")} <= {"services", "volumes", "secrets"}
    used = set()
    for name, service in services.items():
        assert ":" in service["image"], name
        assert command_of(service), name
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} would be reached from other machines: {port}"
        for volume in service.get("volumes", ()):
            used.add(volume.partition(":")[0])
        assert set(service.get("secrets", ())) <= set(found.get("secrets", {}))
        for word in command_of(service):
            if match := re.fullmatch(r"--(?:join|advertise[-_]addr(?:ess)?)=(.*)", word):
                assert set(match[1].split(",")) <= set(services), word
    assert used == set(found["volumes"])
    # What its comment asks to be done once is done in one of its services, by this file's name.
    for line in re.findall(r"docker compose (.*)", path.read_text("utf-8")):
        words = line.split()
        assert words[words.index("-f") + 1] == path.name
        assert words[words.index("exec") + 1] in services


@pytest.mark.process
@pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR")
def test_postgresql_takes_every_setting_of_its_manifest() -> None:
    from sandbox.journals import JournalError, local_server

    psycopg = pytest.importorskip("psycopg")
    words = command_of(manifest(DEPLOY / "postgresql.yaml")["services"]["db"])
    settings = [word.split("=", 1) for word in words[1:] if word != "-c"]
    assert words[0] == "postgres"
    assert len(settings) == words.count("-c") > 3
    try:
        with local_server() as server, psycopg.connect(server.url, autocommit=True) as database:
            for name, wanted in settings:
                value = "on" if wanted in BUILT_IN.get(name, ()) else wanted
                database.execute(f"ALTER SYSTEM SET {name} = '{value}'")
                database.execute(f"ALTER SYSTEM RESET {name}")
    except JournalError as error:
        pytest.skip(str(error))


# -- documented commands ---------------------------------------------------------------------------------------


def documented() -> Iterator[tuple[str, list[str]]]:
    """Page and words of each `hutong` command in a block of code, as far as it is written out."""
    for page in PAGES:
        text = page.read_text("utf-8")
        fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        indented = re.findall(
            r"^    (\S.*)$", re.sub(r"^```\w*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.M
        )
        for line in [*"\n".join(fenced).splitlines(), *indented]:
            match = re.match(r"\s*(?:[A-Z_]+=\S+ )*hutong (.*)", line)
            if match:
                yield page.name, re.split(r"\s+#|…|\s\.\.\.", match[1])[0].split()


def test_every_documented_command_has_the_options_it_shows() -> None:
    seen = 0
    for page, words in documented():
        command: click.Command = main
        path = []
        rest = list(words)
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            path.append(rest.pop(0))
            found = command.get_command(click.Context(command), path[-1])
            assert found is not None, f"{page}: hutong {' '.join(path)}"
            command = found
        options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
        for word in rest:
            if word.startswith("--"):
                assert word.split("=")[0] in options, f"{page}: hutong {' '.join(words)}"
        seen += 1
    assert seen > 40
