"""Tokens and their routing keys, printed in tables, for a person."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Column, Table
from rich.text import Text

from command.printing.screen import add_row
from command.printing.token_values import kind_word, state_word
from hutong.tokenization.v1 import token_pb2 as pb
from hutong_client.wording import money
from hutong_contract.currencies import EXPONENT_OF


def reference_column() -> Column:
    """References are copied from the screen: they are never cut."""
    return Column("key", min_width=32, no_wrap=True)


def event_word(event: pb.TokenEvent) -> str:
    """What happened, in words."""
    return event.kind.replace("_", " ")


def token_table(view: pb.TokenView) -> Table:
    """A token for a person."""
    table = Table(show_header=False, box=None, padding=(0, 1))
    rows = [
        ("reference", view.token_ref.hex()),
        ("token", f"····{view.last_four}" if view.last_four else ""),
        ("issuer", view.issuer_id),
        ("PAR", view.par),
        ("state", state_word(view.state) + (" (account erased)" if view.erased else "")),
        ("assurance", view.assurance_method),
        ("domain", _domain_text(view.domain)),
        ("budget", _budget_text(view.budget)),
        ("requestors", ", ".join(view.requestor_ids) or "any"),
        ("made", view.create_time.ToJsonString()),
        ("expires", view.expire_time.ToJsonString()),
    ]
    for name, value in rows:
        if value:
            add_row(table, Text(name, "dim"), value)
    return table


def _budget_text(budget: pb.TokenBudget) -> str:
    if not budget.amount_minor:
        return ""
    days = f" for each {budget.period_days} days" if budget.period_days else ""
    return money(budget.amount_minor, budget.currency, EXPONENT_OF.get(budget.currency, 2)) + days


def _domain_text(domain: pb.TokenDomain) -> str:
    parts = []
    for field, value in domain.ListFields():
        shown = ",".join(value) if field.is_repeated else str(value).lower()
        parts.append(f"{field.name}={shown}")
    return " ".join(parts)


def keys_table(found: Iterable[pb.KeyView]) -> Table:
    """A token's routing keys for a person."""
    table = Table(reference_column(), "kind", "state", "number", "device", box=None, padding=(0, 1))
    table.add_column("domain", overflow="fold")
    for key in found:
        number = f"····{key.last_four}" if key.last_four else ""
        row = (
            key.key_ref.hex(), kind_word(key.kind), state_word(key.state), number, key.device_id,
            _domain_text(key.domain),
        )  # fmt: skip
        add_row(table, *row)
    return table
