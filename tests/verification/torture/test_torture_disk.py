"""A full disk is full for who writes to it, by either method, and is not when it is freed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.deadlines import START_S
from verification.torture.disk import SizeLimit

pytestmark = pytest.mark.process

ON_TMPFS = """
import errno, pathlib, sys
from verification.torture.disk import SmallTmpfs
folder = pathlib.Path(sys.argv[1])
try:
    disk = SmallTmpfs(folder, 1 << 22)
except PermissionError:
    sys.exit(77)
(folder / "before").write_bytes(bytes(1 << 16))
disk.fill(())
try:
    (folder / "while").write_bytes(bytes(1 << 13))
except OSError as error:
    assert error.errno == errno.ENOSPC
else:
    sys.exit("there was room")
disk.free(())
(folder / "after").write_bytes(bytes(1 << 20))
assert (folder / "before").stat().st_size == 1 << 16
"""
WRITER = """
import sys
for line in sys.stdin:
    try:
        with open(sys.argv[1], "ab", buffering=0) as file:
            file.write(bytes(4096))
    except OSError as error:
        print(type(error).__name__, error.errno, flush=True)
    else:
        print("written", flush=True)
"""


def test_a_tmpfs_that_nobody_else_sees(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ON_TMPFS, str(tmp_path)], capture_output=True, text=True, timeout=START_S
    )
    if done.returncode == 77:
        pytest.skip("this system allows neither mounts nor user namespaces")
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []  # it ended with its process


def test_a_limit_on_a_running_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "file")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None

        def write() -> str:
            assert writer.stdin is not None
            assert writer.stdout is not None
            writer.stdin.write("\n")
            writer.stdin.flush()
            return writer.stdout.readline().strip()

        disk = SizeLimit()
        assert write() == "written"
        disk.fill([writer.pid])
        assert write() == "OSError 27"  # EFBIG
        disk.free([writer.pid])
        assert write() == "written"
        writer.stdin.close()
    disk.fill([writer.pid])  # a process that has ended is none to limit
