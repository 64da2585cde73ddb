"""`hutong` on a machine whose wall clock can be set: `python -m verification.torture.clocked FILE up …`.

FILE holds by how many nanoseconds the clock is wrong, in eight bytes (big-endian, signed), read at each look. Nothing
of the machine is changed: the process alone sees another time.
"""

from __future__ import annotations

import mmap
import runpy
import struct
import sys
import time
from pathlib import Path
from typing import Final

_AHEAD: Final = struct.Struct(">q")


def set_ahead(path: Path, ahead_us: int) -> None:
    """Sets the clock of whoever runs with this file. One write of eight bytes: it is seen whole or not at all."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(_AHEAD.pack(ahead_us * 1000))


def run(path: Path, arguments: list[str]) -> None:
    """Runs the command; does not return."""
    with path.open("rb") as file:
        shared = mmap.mmap(file.fileno(), _AHEAD.size, prot=mmap.PROT_READ)
    true_ns = time.time_ns

    def wrong_ns() -> int:
        return true_ns() + int(_AHEAD.unpack(shared[: _AHEAD.size])[0])

    time.time_ns = wrong_ns
    time.time = lambda: wrong_ns() / 1e9
    sys.argv = ["hutong", *arguments]
    runpy.run_module("command.main", run_name="__main__")  # only now: whoever keeps a clock gets this one


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2:])
