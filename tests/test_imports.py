"""How modules may import each other, beyond the contracts of import-linter in pyproject.toml."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
PACKAGES = CONTRACTS["root_packages"]


@cache
def graph() -> grimp.ImportGraph:
    """Every import of our own modules, those for annotations and those inside functions too."""
    first, *others = PACKAGES
    return grimp.build_graph(first, *others, cache_dir=None)


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module (Tarjan 1972)."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        numbers[module] = lowest[module] = len(numbers)
        path.append(module)
        for other in sorted(imports.get(module, ())):
            if other not in numbers:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in path:
                lowest[module] = min(lowest[module], numbers[other])
        if lowest[module] == numbers[module]:
            circle = path[path.index(module) :]
            del path[path.index(module) :]
            if len(circle) > 1:
                found.append(sorted(circle))

    for module in sorted(imports):
        if module not in numbers:
            visit(module)
    return found


def test_a_circle_is_found() -> None:
    """Of three among five; a chain and a diamond are none."""
    assert circles({"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": set()}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) == []


def test_modules_do_not_import_in_circles() -> None:
    found = graph()
    assert circles({module: set(found.find_modules_directly_imported_by(module)) for module in found.modules}) == []


def test_the_engine_imports_only_what_it_decides_on() -> None:
    """Whatever is new in the gateway is on the other side of a port."""
    found = graph()
    engine = {one for one in found.modules if one.startswith("gateway.engine")}
    imported = {other for one in engine for other in found.find_modules_directly_imported_by(one)} - engine
    allowed = ("hutong.", "hutong_contract.", "tokenization.interface")
    assert engine
    assert {other for other in imported if not other.startswith(allowed)} == set()
