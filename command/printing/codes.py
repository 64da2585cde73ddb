"""Decoded barcodes, for a person."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from command.printing.screen import Screen, add_row
from hutong_contract.cleaning import printable


def code_page(shape: dict[str, Any]) -> str:
    """A decoded barcode for people: one row for each thing that it says."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for key, value in shape.items():
        if value in (None, [], ()):
            continue
        if key in {"strict", "profile"}:
            lines = [f"{v['path'] or 'payload'}: {v['rule']} ({v['found']})" for v in value["violations"]]
            shown = ["valid" if value["valid"] else "not valid", *lines]
            add_row(table, key, Text("\n".join(map(printable, shown))))
        elif key == "candidates":
            add_row(table, key, ", ".join(f"{item['scheme']} {item['score']}" for item in value))
        elif isinstance(value, dict):
            add_row(table, key, ", ".join(f"{name}={item}" for name, item in value.items() if item))
        else:
            add_row(table, key, ", ".join(value) if isinstance(value, list) else str(value))
    return _printed(table)


def picture_page(shape: dict[str, Any]) -> str:
    """What one picture shows, for a person; or why it could not be read."""
    if shape["error"]:
        return f"{shape['file']}: {shape['error']}\n"
    lines = [f"{shape['file']}: {len(shape['codes'])} found\n"]
    lines += [f"{c['format']} ({c['reader']}): {c['text']}\n{code_page(c['decoded'])}" for c in shape["codes"]]
    return "".join(lines)


def _printed(table: Table) -> str:
    console = Screen(width=120, highlight=False, markup=False, emoji=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()
