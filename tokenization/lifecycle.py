"""The life of a token or a routing key, as a table: state and event give the next state, or the event is refused."""

from __future__ import annotations

import enum
from typing import Final

from hutong_contract.errors import HutongError, Reason


class State(enum.IntEnum):
    """Where a token or a key stands. The numbers are stored, and equal hutong.tokenization.v1.TokenState."""

    REQUESTED = 1
    ACTIVE = 2
    SUSPENDED = 3
    DELETED = 4
    EXPIRED = 5
    REPLACED = 6


class Event(enum.Enum):
    """What happens to a token or a key; the value is the word in the history."""

    ACTIVATE = "activated"
    SUSPEND = "suspended"
    RESUME = "resumed"
    DELETE = "deleted"
    EXPIRE = "expired"
    RENEW = "renewed"
    REPLACE = "replaced"


TRANSITIONS: Final = {
    (State.REQUESTED, Event.ACTIVATE): State.ACTIVE,
    (State.REQUESTED, Event.DELETE): State.DELETED,
    (State.REQUESTED, Event.EXPIRE): State.EXPIRED,
    (State.ACTIVE, Event.SUSPEND): State.SUSPENDED,
    (State.ACTIVE, Event.DELETE): State.DELETED,
    (State.ACTIVE, Event.EXPIRE): State.EXPIRED,
    (State.ACTIVE, Event.REPLACE): State.REPLACED,
    (State.SUSPENDED, Event.RESUME): State.ACTIVE,
    (State.SUSPENDED, Event.DELETE): State.DELETED,
    (State.SUSPENDED, Event.EXPIRE): State.EXPIRED,
    (State.SUSPENDED, Event.REPLACE): State.REPLACED,
    # Moving the expiry of an expired token brings it back; nothing brings back the other two ends.
    (State.EXPIRED, Event.RENEW): State.ACTIVE,
    (State.EXPIRED, Event.DELETE): State.DELETED,
    (State.EXPIRED, Event.REPLACE): State.REPLACED,
}
"""Everything that may happen. What is not here is refused."""


def advance(state: State, event: Event) -> State:
    """The next state. Raises HutongError(TOKEN_TRANSITION) where the table has none."""
    after = TRANSITIONS.get((state, event))
    if after is None:
        raise HutongError(Reason.ERROR_REASON_TOKEN_TRANSITION, state=state.name.lower(), change=event.value)
    return after


def state_at(state: State, expires_us: int, now_us: int) -> State:
    """The state that counts at a moment: expiry takes effect by itself, before anybody writes it down."""
    if now_us >= expires_us and (state, Event.EXPIRE) in TRANSITIONS:
        return State.EXPIRED
    return state
