"""The lifecycle of a token or routing key, as a table from state and event to the next state. Other events are
refused."""

from __future__ import annotations

import enum
from typing import Final

from hutong_contract.errors import HutongError, Reason


class State(enum.IntEnum):
    """The state of a token or key. The numbers are stored, and equal hutong.tokenization.v1.TokenState."""

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
"""All transitions. An event that is missing here is refused."""


def advance(state: State, event: Event) -> State:
    """The next state. Raises HutongError(TOKEN_TRANSITION) if the table has none."""
    after = TRANSITIONS.get((state, event))
    if after is None:
        raise HutongError(Reason.ERROR_REASON_TOKEN_TRANSITION, state=state.name.lower(), change=event.value)
    return after


def state_at(state: State, expires_us: int, now_us: int) -> State:
    """The effective state at a moment: expiry takes effect by time, before it is recorded."""
    if now_us >= expires_us and (state, Event.EXPIRE) in TRANSITIONS:
        return State.EXPIRED
    return state
