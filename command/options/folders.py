"""Options that name a data folder and its journal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Option = Callable[[Callable[..., Any]], Callable[..., Any]]

NEW_FOLDER = click.Path(file_okay=False, path_type=Path)
"""A folder that may be made."""
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
"""A folder that is there."""
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
"""A file that is there."""
NEW_FILE = click.Path(dir_okay=False, path_type=Path)
"""A file that may be made, or replaced."""


def data_option(text: str, *, new: bool = False, required: bool = False) -> Option:
    """`--data DIR`, which the command gets as `data`; `new`: the folder may be made, `text` says what for."""
    return click.option("--data", type=NEW_FOLDER if new else FOLDER, required=required, help=text)


def journal_option(text: str, *, remembered: bool = False) -> Option:
    """`--journal URL`, which the command gets as `journal`, empty where it is not given. `remembered`: the environment
    variable HUTONG_JOURNAL may name it too."""
    return click.option(
        "--journal", default="", metavar="URL", envvar="HUTONG_JOURNAL" if remembered else None, help=text
    )


vault_option = click.option(
    "--vault",
    type=NEW_FOLDER,
    help="Folder of the token vault, which gateways of one machine may share. Default: vault in the data folder.",
)
