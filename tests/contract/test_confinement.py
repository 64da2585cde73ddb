"""What a process keeps to itself: files, core dumps, its environment, and how many files it may open."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hutong_contract import confinement
from tests.deadlines import START_S


def said_by(script: str, **environment: str) -> Any:
    """What a process of its own says: these functions change the process that calls them."""
    paths = os.pathsep.join(path for path in sys.path if path)
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=START_S,
        check=True,
    )
    return json.loads(ran.stdout)


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.lstat().st_mode & 0o777 for path in (folder, *folder.rglob("*"))}


def test_what_others_could_use_is_theirs_no_longer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outside = tmp_path / "outside"
    outside.write_text("not ours")
    outside.chmod(0o644)
    folder = tmp_path / "data"
    (folder / "below").mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "below").chmod(0o777)
    for name, mode in (("journal", 0o644), ("below/tool", 0o755), (".hidden", 0o666), ("own", 0o600)):
        (folder / name).write_text("x")
        (folder / name).chmod(mode)
    (folder / "link").symlink_to(outside)
    with caplog.at_level(logging.WARNING):
        assert confinement.tighten(folder) == 5
    found = modes(folder)
    del found["link"]
    assert found == {".": 0o700, "below": 0o700, "below/tool": 0o700, "journal": 0o600, ".hidden": 0o600, "own": 0o600}
    assert outside.stat().st_mode & 0o777 == 0o644
    assert "5 files or folders" in caplog.text
    caplog.clear()
    assert confinement.tighten(folder) == 0
    assert caplog.text == ""


def test_a_mask_holds_for_a_while_and_nothing_is_loosened(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        with confinement.kept_to_owner():
            (tmp_path / "during").write_text("x")
        (tmp_path / "after").write_text("x")
    finally:
        os.umask(before)
    assert (tmp_path / "during").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "after").stat().st_mode & 0o777 == 0o664


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_there_are_no_core_dumps() -> None:
    said = said_by(
        "import ctypes, json, resource\n"
        "from hutong_contract import confinement\n"
        "dumpable = lambda: ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)\n"
        "before = dumpable()\n"
        "done = confinement.without_dumps()\n"
        "print(json.dumps([before, done, dumpable(), resource.getrlimit(resource.RLIMIT_CORE)]))"
    )
    assert said == [1, True, 0, [0, 0]]


def test_open_files_are_as_many_as_the_system_allows() -> None:
    said = said_by(
        "import json, logging, resource\n"
        "from hutong_contract import confinement\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 2048))\n"
        "raised = confinement.raise_open_files()\n"
        "kept = confinement.raise_open_files(wanted=512, least=512)\n"
        "print(json.dumps([raised, kept, resource.getrlimit(resource.RLIMIT_NOFILE)[0]]))"
    )
    assert said == [2048, 2048, 2048]


def test_a_child_inherits_no_secrets() -> None:
    secrets = {
        "HUTONG_PASSPHRASE": "a", "HUTONG_HSM_PIN": "b", "HUTONG_JOURNAL": "postgresql://u:p@h/d", "PGPASSWORD": "c",
        "HUTONG_FACE_OPERATOR_SECRET": "d", "AWS_SECRET_ACCESS_KEY": "e", "ANYTHING": "f",
    }  # fmt: skip
    said = said_by(
        "import json\nfrom hutong_contract.confinement import environment\nprint(json.dumps(environment(MORE='1')))",
        **secrets,
        LC_ALL="C.UTF-8",
    )
    assert not set(secrets) & set(said)
    assert (said["MORE"], said["LC_ALL"], said["PATH"]) == ("1", "C.UTF-8", os.environ["PATH"])
