"""Writes a window's statements as files, with a manifest. Each file is complete or absent, and the same bytes each
time.

FOLDER/window-000001/PARTICIPANT.csv
FOLDER/window-000001/PARTICIPANT.CURRENCY.camt053.xml
FOLDER/window-000001/manifest.json                      written last: what it names is complete
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from gateway.clearing.model import Position, Settled, Window
from gateway.clearing.statements import CHUNK_CHARACTERS, Statement, writer

MANIFEST: Final = "manifest.json"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A line of the manifest."""

    name: str
    size_bytes: int
    sha256: str
    """Hexadecimal."""


def folder_name(window: int) -> str:
    """The folder of a window's files."""
    return f"window-{window:06}"


class FileSink:
    """A file that appears under its name when it is complete: it is written under another name, synced, and renamed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._digest = hashlib.sha256()
        self._size = 0
        os.close(os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))

    def write(self, content: bytes) -> None:
        """Appends. The file is not kept open: there may be more statements than file descriptors."""
        self._digest.update(content)
        self._size += len(content)
        with self._temporary.open("ab") as file:
            file.write(content)

    def finish(self) -> FileEntry:
        """Makes the file durable and gives it its name."""
        with self._temporary.open("ab") as file:
            os.fsync(file.fileno())
        self._temporary.replace(self._path)
        return FileEntry(self._path.name, self._size, self._digest.hexdigest())

    def abandon(self) -> None:
        """Removes what was written."""
        self._temporary.unlink(missing_ok=True)


class _Open:
    """A statement that is being written."""

    def __init__(self, statement: Statement, window: Window, positions: Sequence[Position], folder: Path) -> None:
        self._writer = writer(statement, window, positions)
        self._parts = [self._writer.begin()]
        self._size = 0
        self.sink = FileSink(folder / statement.file_name)

    def take(self, settled: Settled) -> None:
        part = self._writer.line(settled)
        self._parts.append(part)
        self._size += len(part)
        if self._size >= CHUNK_CHARACTERS:
            self._flush()

    def finish(self) -> FileEntry:
        self._parts.append(self._writer.end())
        self._flush()
        return self.sink.finish()

    def _flush(self) -> None:
        self.sink.write("".join(self._parts).encode())
        self._parts, self._size = [], 0


def write_files(
    window: Window,
    wanted: Iterable[Statement],
    positions: Sequence[Position],
    settled: Iterable[Settled],
    folder: Path,
) -> list[FileEntry]:
    """Writes statements of a window below `folder` in one pass over its payments. Raises OSError; then every file that
    is there is complete."""
    target = folder / folder_name(window.number)
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    written: dict[Statement, _Open] = {}
    try:
        takers: dict[str, list[_Open]] = {}
        for statement in wanted:
            written[statement] = _Open(statement, window, positions, target)
            takers.setdefault(statement.participant, []).append(written[statement])
        for one in settled:
            for participant in (one.debtor, one.creditor):
                for taker in takers.get(participant, ()):
                    taker.take(one)
        entries = [written[statement].finish() for statement in sorted(written, key=lambda one: one.file_name)]
        write_manifest(target, window.number, entries)
    except BaseException:
        for unfinished in written.values():
            unfinished.sink.abandon()
        raise
    return entries


def write_manifest(target: Path, window: int, entries: Iterable[FileEntry]) -> None:
    """Writes the manifest of a window's folder, after the files that it names."""
    sink = FileSink(target / MANIFEST)
    listed = [asdict(entry) for entry in entries]
    sink.write((json.dumps({"window": window, "files": listed}, indent=1) + "\n").encode())
    sink.finish()
    handle = os.open(target, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def verify(target: Path) -> Iterator[str]:
    """The faults of a window's folder: files that are missing or differ from the manifest."""
    manifest = json.loads((target / MANIFEST).read_text())
    for entry in manifest["files"]:
        path = target / entry["name"]
        if not path.exists():
            yield f"{entry['name']} is missing"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            yield f"{entry['name']} is not what the manifest says"
