"""What a check is: a name, the rule that it holds a participant to, and a function of a session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sandbox.participants.ledger import Role
from verification.conformance.session import Session

BOTH = (Role.ISSUER, Role.ACQUIRER)


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `run` adds findings to the session; it raises Unanswered where it cannot go on, and Inapplicable where
    it cannot be made of this participant. Afterwards the account has what it had before, unless something is wrong."""

    name: str
    rule: str
    roles: tuple[Role, ...]
    run: Callable[[Session], None]


def check(name: str, rule: str, *roles: Role) -> Callable[[Callable[[Session], None]], Check]:
    """Makes a function a check, for both roles unless some are named."""
    return lambda run: Check(name, rule, roles or BOTH, run)
