"""Printing lines and JSON in which texts from outside are shown but control nothing."""

from __future__ import annotations

import sys
from typing import Any

import click

from hutong_contract.cleaning import json_text, printable_lines


def say(text: str, **how: Any) -> None:
    """Prints lines of our own that may name what came from outside; `how` as click.echo's."""
    click.echo(printable_lines(text), **how)


def say_json(value: Any) -> None:
    """Prints a value as JSON on one line; reading it gives the value back exactly."""
    click.echo(json_text(value))


def say_either(value: Any, page: str, *, as_json: bool) -> None:
    """Prints a value as JSON, or its page, which is printable, for a person."""
    if as_json:
        say_json(value)
    else:
        click.echo(page, nl=not page.endswith("\n"))


def say_exact(text: str) -> None:
    """Prints a text that another program may read: exactly, unless a person reads it on a terminal."""
    click.echo(printable_lines(text) if sys.stdout.isatty() else text)
