"""How a command prints: for a person, or as JSON for a program."""

from __future__ import annotations

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on one line, for a program.")
"""The command gets it as `as_json`."""
json_lines_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
"""The same of a command that prints several things."""
json_or_text_option = click.option(
    "--json/--text", "as_json", default=False, help="Print JSON on one line, for a program; or the text, the default."
)
"""The same of a command whose text is a document by itself."""
