"""What a machine can check of the words: who needs a docstring, what an error says, where links in the docs lead.

ruff checks the docstrings of modules, classes and functions. Methods are checked here, because an override says nothing
that the interface does not say already, and interfaces are often met without being inherited (typing.Protocol).
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from hutong.status.v1 import status_pb2

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "clients/python/hutong_client",
    "command",
    "contract/hutong_contract",
    "facepay",
    "gateway",
    "loadtest",
    "sandbox",
    "tokenization",
    "verification",
)
METHODS = (ast.FunctionDef, ast.AsyncFunctionDef)
INTERFACES = ("Protocol", "ABC")
PLAIN = (*INTERFACES, "Enum", "Exception", "Generic", "IntEnum", "NamedTuple", "StrEnum", "object")
"""Bases from outside that declare no methods of interest."""
ADVICE = frozenset(
    {
        "add",
        "ask",
        "call",
        "capture",
        "check",
        "close",
        "connect",
        "correct",
        "end",
        "enrol",
        "fill",
        "list",
        "make",
        "name",
        "pay",
        "rebuild",
        "refund",
        "repeat",
        "request",
        "resume",
        "round",
        "scan",
        "send",
        "split",
        "start",
        "try",
        "use",
        "wait",
    }
)
"""The verbs that the advice of an error begins with; a further one is added here."""
EXEMPT = ("ERROR_REASON_UNSPECIFIED",)


@cache
def classes() -> list[tuple[Path, ast.ClassDef]]:
    return [
        (path, node)
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    ]


def base_names(node: ast.ClassDef) -> list[str]:
    """The last parts of the names of a class's bases: `a.Base[int]` is Base."""
    plain = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
    return [ast.unparse(base).rpartition(".")[2] for base in plain]


def described(node: ast.ClassDef) -> set[str]:
    return {item.name for item in node.body if isinstance(item, METHODS) and ast.get_docstring(item)}


@cache
def interfaces() -> frozenset[str]:
    """Names of methods that a protocol or an abstract class describes."""
    found = [described(node) for _, node in classes() if set(INTERFACES) & set(base_names(node))]
    return frozenset().union(*found)


def inherited(node: ast.ClassDef) -> Iterator[str]:
    """Names of methods that the bases of a class describe; one from outside (a servicer, a handler) describes all."""
    ours = {other.name: other for _, other in classes()}
    for name in base_names(node):
        if name in ours and ours[name] is not node:
            yield from described(ours[name])
            yield from inherited(ours[name])


def is_override(node: ast.ClassDef, method: str) -> bool:
    ours = {other.name for _, other in classes()}
    outside = [name for name in base_names(node) if name not in ours and name not in PLAIN]
    return bool(outside) or method in interfaces() or method in inherited(node)


def test_every_public_method_is_described_where_it_is_first_declared() -> None:
    missing = [
        f"{path.relative_to(ROOT)}:{item.lineno} {node.name}.{item.name}"
        for path, node in classes()
        if not node.name.startswith("_")
        for item in node.body
        if isinstance(item, METHODS) and not item.name.startswith("_")
        if not ast.get_docstring(item) and not is_override(node, item.name)
        if not any(ast.unparse(mark).endswith((".setter", "overload")) for mark in item.decorator_list)
    ]
    assert missing == []


def test_no_docstring_only_points_elsewhere() -> None:
    """An override needs no docstring; another one says what a thing is before it names others."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                text = ast.get_docstring(node) if isinstance(node, (*METHODS, ast.ClassDef, ast.Module)) else None
                if text and text.startswith("See "):
                    found.append(f"{path.relative_to(ROOT)}: {text.splitlines()[0]}")
    assert found == []


@pytest.mark.parametrize(
    "name", [name for name in status_pb2.ErrorReason.DESCRIPTOR.values_by_name if name not in EXEMPT]
)
def test_the_text_of_an_error_ends_with_advice(name: str) -> None:
    value = status_pb2.ErrorReason.DESCRIPTOR.values_by_name[name]
    text = value.GetOptions().Extensions[status_pb2.rule].text
    assert text.endswith("."), text
    what, *advice = re.split(r"[.;] ", text)
    assert what[0].isupper(), text
    assert advice, f"says what is wrong, but not what to do: {text}"
    verbs = [verb[1].lower() for part in advice if (verb := re.match(r"(?:to [^,]*, )?(\w+)", part))]
    assert ADVICE & set(verbs), f"no sentence or clause begins with a verb of ADVICE: {text}"


PAGES = sorted(
    page
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("examples/**/*.md"))
    if "node_modules" not in page.parts  # what `npm ci` installs in examples/node
)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_of_docs_is_in_the_index() -> None:
    docs = ROOT / "docs"
    text = (docs / "index.md").read_text("utf-8")
    linked = {(docs / link.partition("#")[0]).resolve() for link in re.findall(r"\]\(([^)\s]+)\)", text)}
    pages = [page for page in docs.rglob("*.md") if page.parent.name != "api" and page.name != "index.md"]
    assert [str(page.relative_to(ROOT)) for page in pages if page.resolve() not in linked] == []


def test_the_changelog_knows_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(rf"^## {re.escape(version)} - \d{{4}}-\d\d-\d\d$", text, re.MULTILINE)
    assert "## Unreleased" in text
