"""A data folder is its user's alone, whatever the umask; secrets do not reach processes that a network starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from sandbox.institutions import Institutions, end
from sandbox.network import Network
from sandbox.options import NetworkOptions
from sandbox.population import populate
from tests.deadlines import START_S, wait_until

pytestmark = pytest.mark.process


@contextmanager
def up(data: Path, *options: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """`hutong up` on a folder, with a umask that hides nothing."""
    command = [sys.executable, "-c", "from command.main import main; main()", "up", "--data", str(data)]
    paths = os.pathsep.join(path for path in sys.path if path)
    with (data.parent / "log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--listen", "127.0.0.1:0", *options],
            env={**os.environ, **environment, "PYTHONPATH": paths}, stdout=log, stderr=log, umask=0,
        )  # fmt: skip
    try:
        wait_until(lambda: running(data) == process.pid or process.poll() is not None, START_S)
        assert process.poll() is None, (data.parent / "log").read_text()
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_S) == 0
    finally:
        process.kill()
        process.wait()


def running(data: Path) -> int:
    try:
        return int(json.loads((data / "network.json").read_text())["pid"])
    except (OSError, ValueError, KeyError):
        return 0


def open_to_others(folder: Path) -> list[str]:
    return sorted(str(path) for path in (folder, *folder.rglob("*")) if path.lstat().st_mode & 0o077)


def test_nothing_in_a_data_folder_is_anybody_elses(tmp_path: Path) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache"
    with up(data, HUTONG_CACHE=str(cache)) as process:
        assert open_to_others(data) == []
        if sys.platform == "linux":
            assert psutil.Process(process.pid).rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert open_to_others(data) == []
    assert open_to_others(cache) == []
    # As an older version left it, or a copy that was brought back:
    loose = [data, data / "gateway.db", data / "participants", data / "participants" / "books.db", data / "faces"]
    for path in loose:
        path.chmod(0o777 if path.is_dir() else 0o644)
    with up(data, HUTONG_CACHE=str(cache)):
        assert open_to_others(data) == []
    assert f"{data}: other users could use " in (tmp_path / "log").read_text()


def test_a_network_in_a_process_of_others_makes_its_files_for_itself(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Network.start(NetworkOptions(data=tmp_path / "data", listen="127.0.0.1:0")):
            assert open_to_others(tmp_path / "data") == []
        (tmp_path / "other").write_text("not the network's")
    finally:
        os.umask(before)
    assert (tmp_path / "other").stat().st_mode & 0o777 == 0o666


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_the_participants_processes_get_their_secrets_in_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on their command line and not in their environment; and nothing of what opens the gateway."""
    monkeypatch.setenv("HUTONG_PASSPHRASE", "the vault's")
    monkeypatch.setenv("PGPASSWORD", "the database's")
    institutions = Institutions(populate(1), tmp_path)
    one = institutions.population.institutions[0]
    process = institutions.start(one, ["127.0.0.1:1"])
    try:
        begun = psutil.Process(process.pid)
        wait_until(lambda: (institutions.folder(one.id) / "books.db").exists() or process.poll() is not None, START_S)
        shown = [*begun.cmdline(), *begun.environ(), *begun.environ().values()]
        for secret in (one.secret.reveal(), "the vault's", "the database's", "PGPASSWORD", "HUTONG_PASSPHRASE"):
            assert not any(secret in text for text in shown)
    finally:
        end([process])
