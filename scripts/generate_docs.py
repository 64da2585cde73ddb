"""Writes the API reference (docs/api/) and the error table (docs/errors.md) from the comments and options of proto/.

python scripts/generate_docs.py            # writes them
python scripts/generate_docs.py --check    # exits with 1 if those that are checked in differ
"""

from __future__ import annotations

import importlib
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import descriptor_pb2 as d
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

ROOT = Path(__file__).resolve().parents[1]
PROTO = ROOT / "proto"
DOCS = ROOT / "docs"
ERRORS = "hutong/status/v1/status.proto"
NOTE = "<!-- Generated from proto/ by scripts/generate_docs.py; change the comments there, then run `make proto`. -->"
LABELS = {Field.LABEL_REPEATED: "repeated "}
SCALARS = {number: name.removeprefix("TYPE_").lower() for name, number in Field.Type.items()}

# Numbers of fields in descriptor.proto, of which the paths of comments are made.
FILE_MESSAGE, FILE_ENUM, FILE_SERVICE, FILE_PACKAGE = 4, 5, 6, 2
MESSAGE_FIELD, MESSAGE_NESTED, MESSAGE_ENUM, ENUM_VALUE, SERVICE_METHOD = 2, 3, 4, 2, 2
FILE_SYNTAX = 12

RANGES = (
    (1, 99, "Any request"),
    (100, 199, "Payments"),
    (200, 299, "Barcodes and payment codes"),
    (300, 399, "Tokens"),
    (400, 499, "Faces"),
    (500, 599, "Participants"),
    (600, 699, "The gateway's own condition"),
    (700, 799, "Settlement"),
)
"""The ranges of numbers that status.proto names, and their headings."""


class DocsError(Exception):
    """The protos cannot be turned into documentation; the text says why."""


@dataclass(frozen=True)
class Source:
    """A .proto file with its comments."""

    file: d.FileDescriptorProto
    comments: dict[tuple[int, ...], str] = field(default_factory=dict)

    @property
    def page(self) -> str:
        """Name of its page in docs/api, without the ending."""
        return Path(self.file.name).stem

    def about(self, *path: int) -> str:
        """The comment before the element at this path, as one paragraph; empty if it has none."""
        return self.comments.get(path, "")


def main(arguments: Sequence[str]) -> int:
    """Writes or checks the pages; returns the exit status."""
    sources = read_sources()
    pages = dict(build_pages(sources))
    if list(arguments) == ["--check"]:
        return check(pages)
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    (DOCS / "api").mkdir(exist_ok=True)
    for path in stale(pages):
        path.unlink()
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
    return 0


def check(pages: dict[Path, str]) -> int:
    """Names each page that differs from what is checked in."""
    differing = [path for path, text in pages.items() if not path.exists() or path.read_text("utf-8") != text]
    for path in (*differing, *stale(pages)):
        print(f"{path.relative_to(ROOT)} is stale: run 'make proto' and commit the result", file=sys.stderr)
    if differing or stale(pages):
        return 1
    print("docs/api and docs/errors.md are fresh")
    return 0


def stale(pages: dict[Path, str]) -> list[Path]:
    """Pages in docs/api that no .proto file has any more."""
    return sorted(path for path in (DOCS / "api").glob("*.md") if path not in pages)


def read_sources() -> list[Source]:
    """Compiles proto/ with its comments. Raises DocsError."""
    from grpc_tools import protoc

    names = sorted(str(path.relative_to(PROTO)) for path in PROTO.glob("hutong/**/*.proto"))
    google = Path(next(iter(importlib.import_module("google.rpc").__path__))).parents[1]
    builtin = Path(protoc.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.binpb"
        includes = [f"-I{PROTO}", f"-I{google}", f"-I{builtin}"]
        if protoc.main(["protoc", *includes, "--include_source_info", "-o", str(image), *names]):
            raise DocsError("protoc refuses proto/; its message is above")
        sys.path.insert(0, str(PROTO / "gen"))
        importlib.import_module("hutong.status.v1.status_pb2")  # registers the option of ErrorReason
        compiled = d.FileDescriptorSet.FromString(image.read_bytes())
    return [Source(file, dict(read_comments(file))) for file in compiled.file]


def read_comments(file: d.FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """The comments of a file by their paths."""
    for location in file.source_code_info.location:
        text = location.leading_comments or location.trailing_comments
        if text:
            paragraphs = re.split(r"\n\s*\n", text.strip())
            yield tuple(location.path), "\n\n".join(" ".join(part.split()) for part in paragraphs)


def build_pages(sources: list[Source]) -> Iterator[tuple[Path, str]]:
    """Each page and its text."""
    homes = dict(find_homes(sources))
    pages = [source for source in sources if source.file.name != ERRORS]
    if len({source.page for source in pages}) != len(pages):
        raise DocsError("two .proto files have the same name, so their pages in docs/api would too; rename one")
    for source in pages:
        yield DOCS / "api" / f"{source.page}.md", "\n".join(build_page(source, homes)) + "\n"
    yield DOCS / "api" / "README.md", "\n".join(build_index(pages)) + "\n"
    (errors,) = (source for source in sources if source.file.name == ERRORS)
    yield DOCS / "errors.md", "\n".join(build_errors(errors)) + "\n"


def find_homes(sources: list[Source]) -> Iterator[tuple[str, str]]:
    """The page of each message and enum, by its full name."""
    for source in sources:
        page = "../errors" if source.file.name == ERRORS else source.page
        for name, _, _ in walk(source.file):
            yield f".{source.file.package}.{name}", page


Element = d.DescriptorProto | d.EnumDescriptorProto


def walk(file: d.FileDescriptorProto) -> Iterator[tuple[str, tuple[int, ...], Element]]:
    """The messages and enums of a file in their order: name with those around it, path of its comment, itself."""
    for index, message in enumerate(file.message_type):
        yield from walk_message(message, message.name, (FILE_MESSAGE, index))
    for index, enum in enumerate(file.enum_type):
        yield enum.name, (FILE_ENUM, index), enum


def walk_message(
    message: d.DescriptorProto, name: str, path: tuple[int, ...]
) -> Iterator[tuple[str, tuple[int, ...], Element]]:
    """A message and what is declared in it, except the entries of maps."""
    yield name, path, message
    for index, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            yield from walk_message(nested, f"{name}.{nested.name}", (*path, MESSAGE_NESTED, index))
    for index, enum in enumerate(message.enum_type):
        yield f"{name}.{enum.name}", (*path, MESSAGE_ENUM, index), enum


def build_page(source: Source, homes: dict[str, str]) -> Iterator[str]:
    """The lines of the reference of one .proto file."""
    file = source.file
    yield from (NOTE, "", f"# {file.package}: {source.page}", "")
    yield f"[proto/{file.name}](../../proto/{file.name})"
    introduction = source.about(FILE_SYNTAX) or source.about(FILE_PACKAGE)
    if introduction:
        yield from ("", introduction)
    for index, service in enumerate(file.service):
        yield from ("", f"## {service.name}", "")
        yield from paragraphs(source.about(FILE_SERVICE, index))
        for place, method in enumerate(service.method):
            takes, gives = named(method.input_type, source, homes), named(method.output_type, source, homes)
            yield from (f"### {service.name}.{method.name}", "")
            sends = "stream of " if method.client_streaming else ""
            returns = "stream of " if method.server_streaming else ""
            yield from (f"{sends}{takes} → {returns}{gives}", "")
            yield from paragraphs(source.about(FILE_SERVICE, index, SERVICE_METHOD, place))
    if not file.service:
        yield ""
    elements = list(walk(file))
    for heading, kind in (("Messages", d.DescriptorProto), ("Enums", d.EnumDescriptorProto)):
        of_kind = [each for each in elements if isinstance(each[2], kind)]
        if of_kind:
            yield from (f"## {heading}", "")
        for name, path, element in of_kind:
            yield from (f"### {name}", "")
            yield from paragraphs(source.about(*path))
            yield from rows(element, path, source, homes)
            yield ""


def paragraphs(text: str) -> Iterator[str]:
    """A text and an empty line behind it, if there is a text."""
    if text:
        yield from (text, "")


def rows(element: Element, path: tuple[int, ...], source: Source, homes: dict[str, str]) -> Iterator[str]:
    """The table of the fields of a message, or of the values of an enum."""
    if isinstance(element, d.EnumDescriptorProto):
        yield from ("| value | number | meaning |", "| --- | --- | --- |")
        for index, value in enumerate(element.value):
            yield row(f"`{value.name}`", str(value.number), source.about(*path, ENUM_VALUE, index))
        return
    if not element.field:
        yield "No fields."
        return
    maps = {nested.name: nested for nested in element.nested_type if nested.options.map_entry}
    yield from ("| field | type | number | meaning |", "| --- | --- | --- | --- |")
    for index, one in enumerate(element.field):
        meaning = source.about(*path, MESSAGE_FIELD, index)
        if one.HasField("oneof_index") and not one.proto3_optional:
            meaning = f"One of `{element.oneof_decl[one.oneof_index].name}`. {meaning}".rstrip()
        yield row(f"`{one.name}`", type_of(one, maps, source, homes), str(one.number), meaning)


def type_of(one: Field, maps: dict[str, d.DescriptorProto], source: Source, homes: dict[str, str]) -> str:
    """The type of a field, with a link to what it is made of."""
    entry = maps.get(one.type_name.rpartition(".")[2]) if one.type == Field.TYPE_MESSAGE else None
    if entry is not None:
        key, value = (type_of(part, {}, source, homes) for part in entry.field)
        return f"map of {key} to {value}"
    base = named(one.type_name, source, homes) if one.type_name else SCALARS[one.type]
    return f"{'optional ' if one.proto3_optional else LABELS.get(one.label, '')}{base}"


def named(full: str, source: Source, homes: dict[str, str]) -> str:
    """A message or enum by its name, with a link if it is one of ours."""
    if full not in homes:
        return f"`{full.removeprefix('.')}`"
    parts = full.removeprefix(".").split(".")
    name = ".".join(part for part in parts if part[0].isupper())
    if homes[full] == "../errors":
        return f"[{name}](../errors.md)"
    page = "" if homes[full] == source.page else f"{homes[full]}.md"
    return f"[{name}]({page}#{name.lower().replace('.', '')})"


def row(*cells: str) -> str:
    """A row of a table."""
    return "| " + " | ".join(cell.replace("\n\n", " ").replace("|", "\\|") for cell in cells) + " |"


def build_index(sources: list[Source]) -> Iterator[str]:
    """docs/api/README.md: every method, and where it is described."""
    yield from (NOTE, "", "# API reference", "")
    yield "Every service, method, message and enum of the contract, from the comments in [proto/](../../proto/hutong)."
    yield "Failed calls carry one of the reasons in [errors.md](../errors.md)."
    for source in sources:
        yield from ("", f"## [{source.file.package}: {source.page}]({source.page}.md)", "")
        yield from paragraphs(source.about(FILE_SYNTAX) or source.about(FILE_PACKAGE))
        for index, service in enumerate(source.file.service):
            yield from ("| method | what it does |", "| --- | --- |")
            for place, method in enumerate(service.method):
                link = f"[{service.name}.{method.name}]({source.page}.md#{(service.name + method.name).lower()})"
                yield row(link, source.about(FILE_SERVICE, index, SERVICE_METHOD, place))


def build_errors(source: Source) -> Iterator[str]:
    """docs/errors.md: the table of reasons in status.proto."""
    status = importlib.import_module("hutong.status.v1.status_pb2")
    codes = importlib.import_module("google.rpc.code_pb2")
    yield from (NOTE, "", "# Errors", "")
    yield from paragraphs(source.about(FILE_SYNTAX))
    yield (
        "In Python a failed call raises `hutong_contract.errors.HutongError`, whose `reason`, `text` and `fields` are "
        "these. Elsewhere decode `grpc-status-details-bin` as google.rpc.Status. A row's number and name never change "
        "their meaning."
    )
    (enum,) = source.file.enum_type
    values = sorted(enum.value, key=lambda value: value.number)
    for low, high, heading in RANGES:
        yield from ("", f"## {heading}", "")
        yield from ("| reason | number | gRPC status | what it means, and what to do |", "| --- | --- | --- | --- |")
        for value in values:
            if low <= value.number <= high:
                rule = value.options.Extensions[status.rule]
                name = value.name.removeprefix("ERROR_REASON_")
                yield row(f"`{name}`", str(value.number), codes.Code.Name(rule.code), rule.text)
    outside = [value.name for value in values if value.number and not any(a <= value.number <= b for a, b, _ in RANGES)]
    if outside:
        raise DocsError(f"{', '.join(outside)} lies in no range of RANGES in scripts/generate_docs.py; add one")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except DocsError as error:
        sys.exit(f"generate_docs: {error}")
