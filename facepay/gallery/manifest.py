"""Which segment files make up a gallery, in one small file that is replaced as a whole."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

NAME = "gallery.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The gallery's state on disk."""

    dimension: int
    epoch: int
    """Which secret the rows were rotated with."""
    segments: tuple[str, ...] = ()
    """File names, oldest first."""
    next_number: int = 1
    """Number of the next file; numbers are never used again."""

    def adding(self, name: str) -> Manifest:
        """With one more segment."""
        return replace(self, segments=(*self.segments, name))

    def without(self, names: set[str]) -> Manifest:
        """With some segments gone."""
        return replace(self, segments=tuple(name for name in self.segments if name not in names))

    def numbered(self) -> tuple[str, Manifest]:
        """A fresh file name, and the manifest that has used it up."""
        return f"segment-{self.next_number:06d}.hgs", replace(self, next_number=self.next_number + 1)


def load(folder: Path) -> Manifest | None:
    """What the folder says; None where it holds no gallery, or a manifest that cannot be read (rows are then
    rebuilt from the store)."""
    try:
        data = json.loads((folder / NAME).read_text())
        return Manifest(data["dimension"], data["epoch"], tuple(data["segments"]), data["next_number"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def save(folder: Path, manifest: Manifest) -> None:
    """Durable when it returns."""
    text = json.dumps(
        {
            "dimension": manifest.dimension,
            "epoch": manifest.epoch,
            "segments": list(manifest.segments),
            "next_number": manifest.next_number,
        },
        indent=1,
    )
    temporary = folder / (NAME + ".new")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / NAME)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
