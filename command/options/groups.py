"""Groups of commands that suggest the command that may have been meant."""

from __future__ import annotations

from typing import Any

import click

CUTOFF = 0.5
"""How alike two words must be, from 0 to 1 (difflib)."""


class Group(click.Group):
    """A group of commands; a word that is none of them is answered with those that are like it."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; the error names up to three commands. Raises click.UsageError."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib  # only mistakes need it

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 3, CUTOFF)
            hint = f"Did you mean {', or '.join(near)}?" if near else f"See {ctx.command_path} --help."
            raise click.UsageError(f"{error.message.rstrip('.')}. {hint}", ctx) from None

    def group(self, *args: Any, **options: Any) -> Any:
        """A group in this one, of the same kind."""
        options.setdefault("cls", Group)
        return super().group(*args, **options)
