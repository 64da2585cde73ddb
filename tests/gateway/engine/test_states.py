"""The state machine's table is total, ends where it must, and says why where nothing happens."""

import pytest

from gateway.engine.states import FINAL, TABLE, Action, Event, Rule, State
from hutong.gateway.v1 import payment_pb2 as pb

CELLS = [(state, event, TABLE[state][event]) for state in State for event in Event if event in TABLE[state]]


def test_every_state_answers_every_event() -> None:
    assert {(state, event) for state, event, _ in CELLS} == {(state, event) for state in State for event in Event}
    assert set(TABLE) == set(State)
    assert all(set(row) == set(Event) for row in TABLE.values())


def test_states_are_those_of_the_contract() -> None:
    names = {value.name.removeprefix("PAYMENT_STATE_"): value.number for value in pb.PaymentState.DESCRIPTOR.values}
    del names["UNSPECIFIED"]
    assert names == {state.name: state.value for state in State}


@pytest.mark.parametrize(("state", "event", "rule"), CELLS)
def test_a_cell_either_acts_or_says_why_not(state: State, event: Event, rule: Rule) -> None:
    assert rule is TABLE[state][event]
    assert bool(rule.actions) != bool(rule.why)
    if rule.why:
        assert rule.to is state
    if state in FINAL:
        assert rule.to is state, "a final state never changes"
    if rule.to is State.REVERSING and state is not State.REVERSING:
        assert rule.goal in FINAL
        assert Action.REVERSE_DEBIT in rule.actions
    assert (rule.to in FINAL or rule.to is None) == (state in FINAL or Action.END in rule.actions)


def test_every_unfinished_state_can_reach_an_end() -> None:
    reaches = set(FINAL)
    while True:
        more = {
            state
            for state in State
            if state not in reaches and any(rule.to in reaches or rule.to is None for rule in TABLE[state].values())
        }
        if not more:
            break
        reaches |= more
    assert reaches == set(State)
