"""A data folder: made, put back as it was where nothing comes of it, and the files in it that only its owner reads."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sandbox.places import PlaceError, make_folder

KEY_BYTES: Final = 32


@contextmanager
def restoring(folder: Path, *, journal: str) -> Iterator[None]:
    """Creates the data folder. If the network then does not start, a folder that was new or empty is emptied again,
    because a start with another seed would find the wrong people in it. If the journal is a database, the folder stays,
    because it has the key by which the database knows it."""
    made = [one for one in (folder, *folder.absolute().parents) if not one.exists()]
    make_folder(folder)
    fresh = not journal and not any(folder.iterdir())
    try:
        yield
    except BaseException:
        if fresh:
            for entry in list(folder.iterdir()):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            for one in made:
                one.rmdir()
        raise


def read_json(path: Path) -> Any:
    """What a JSON file of a data folder holds. Raises PlaceError where it holds none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PlaceError(f"{path} is not JSON: {error}") from None


def key_file(path: Path) -> bytes:
    """A secret key in a file that only its owner can read; made when it is first needed. Raises PlaceError."""
    if not path.exists():
        write_private(path, secrets.token_bytes(KEY_BYTES))
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise PlaceError(f"{path} is not a key of {KEY_BYTES} bytes; restore it from a copy")
    return key


def private(path: str, flags: int) -> int:
    """An opener of files that only their owner can read."""
    return os.open(path, flags, 0o600)


def write_private(path: Path, content: bytes) -> None:
    """Writes a new file that only its owner can read, durably. Raises FileExistsError."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
