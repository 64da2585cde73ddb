"""Build hook: packs what stands outside clients/python into the wheel and the source distribution of hutong-client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGES = {"hutong_contract": "../../contract/hutong_contract", "hutong": "../../proto/gen/hutong"}
"""Package to its folder in the repository. In an unpacked source distribution it lies beside this file."""


class Packing(BuildHookInterface):  # type: ignore[misc]
    """Includes PACKAGES and the licence, from the repository or from an unpacked source distribution."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before a build. Raises FileNotFoundError where a package is at neither place."""
        if version == "editable":
            return  # dev-mode-dirs name the folders themselves
        root = Path(self.root)
        for name, elsewhere in PACKAGES.items():
            build_data["force_include"][str(_found(root / name, root / elsewhere))] = name
        if self.target_name == "sdist":
            build_data["force_include"][str(_found(root / "LICENSE", root / "../../LICENSE"))] = "LICENSE"


def _found(*places: Path) -> Path:
    for place in places:
        if place.exists():
            return place.resolve()
    raise FileNotFoundError(f"none of {', '.join(map(str, places))}")
