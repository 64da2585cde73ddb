"""Every edge of the lifecycle: allowed and refused, in the table and in the vault; what a state does to payments."""

from __future__ import annotations

import pytest

from hutong_contract.errors import HutongError, Reason
from hutong_contract.secret import Secret
from tests.tokenization.world import World, use
from tokenization.interface import Account, PayerKeyKind
from tokenization.key_kinds import KeyKind
from tokenization.lifecycle import TRANSITIONS, Event, State, advance, state_at

HISTORY = {
    State.REQUESTED: [],
    State.ACTIVE: [Event.ACTIVATE],
    State.SUSPENDED: [Event.ACTIVATE, Event.SUSPEND],
    State.DELETED: [Event.DELETE],
    State.REPLACED: [Event.ACTIVATE, Event.REPLACE],
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_the_table_decides(state: State, event: Event) -> None:
    expected = TRANSITIONS.get((state, event))
    if expected is None:
        with pytest.raises(HutongError) as refusal:
            advance(state, event)
        assert refusal.value.reason == Reason.ERROR_REASON_TOKEN_TRANSITION
    else:
        assert advance(state, event) is expected


def test_ends_are_ends() -> None:
    """Nothing leads out of DELETED and REPLACED, and only a later expiry and the ends out of EXPIRED."""
    assert not [edge for edge in TRANSITIONS if edge[0] in (State.DELETED, State.REPLACED)]
    assert {edge[1] for edge in TRANSITIONS if edge[0] is State.EXPIRED} == {Event.RENEW, Event.DELETE, Event.REPLACE}


@pytest.mark.parametrize("state", HISTORY)
@pytest.mark.parametrize("event", [Event.ACTIVATE, Event.SUSPEND, Event.RESUME, Event.DELETE])
def test_edges_in_the_vault(world: World, state: State, event: Event) -> None:
    token = world.token(active=False)
    for step in HISTORY[state]:
        world.service.change_state(token, step)
    assert world.service.show(token)[0].state is state
    expected = TRANSITIONS.get((state, event))
    if expected is None:
        with pytest.raises(HutongError) as refusal:
            world.service.change_state(token, event)
        assert refusal.value.reason == Reason.ERROR_REASON_TOKEN_TRANSITION
        assert world.service.show(token)[0].state is state
    else:
        world.service.change_state(token, event)
        assert world.service.show(token)[0].state is expected
        assert world.reopen().show(token)[0].state is expected


@pytest.mark.parametrize(("state", "pays"), [(state, state is State.ACTIVE) for state in HISTORY])
def test_only_an_active_token_pays(world: World, state: State, *, pays: bool) -> None:
    token = world.token(active=False)
    for step in HISTORY[state]:
        world.service.change_state(token, step)
    if pays:
        world.resolved(use(PayerKeyKind.TOKEN, token))
    else:
        refusal = world.refused(use(PayerKeyKind.TOKEN, token))
        assert refusal.reason == Reason.ERROR_REASON_TOKEN_NOT_ACTIVE
        assert refusal.fields["state"] == state.name.lower()


def test_expiry_takes_effect_by_itself_and_is_written_down_later(world: World) -> None:
    token = world.token(expires_us=world.clock.now_us + 10_000_000)
    world.resolved(use(PayerKeyKind.TOKEN, token))
    world.clock.move_s(10)
    assert world.refused(use(PayerKeyKind.TOKEN, token)).fields["state"] == "expired"
    assert world.service.show(token)[0].state is State.EXPIRED
    assert "expired" not in [event.kind for event in world.service.history(token)]
    world.clock.move_s(700)
    world.refused(use(PayerKeyKind.TOKEN, token))
    world.reopen()  # Closing waits for the housekeeping that the last call began.
    assert [event.kind for event in world.service.history(token)] == ["expired"]
    with pytest.raises(HutongError):
        world.service.change_state(token, Event.RESUME)
    world.service.update_terms(token, expires_us=world.clock.now_us + 1_000_000)
    world.resolved(use(PayerKeyKind.TOKEN, token))


def test_state_at_leaves_ended_states_alone() -> None:
    assert state_at(State.DELETED, 0, 1) is State.DELETED
    assert state_at(State.ACTIVE, 2, 1) is State.ACTIVE
    assert state_at(State.SUSPENDED, 1, 1) is State.EXPIRED


def test_suspending_one_key_leaves_the_others(world: World) -> None:
    token = world.token()
    world.service.bind_face(token, Secret("face-one"))
    two = world.service.bind_face(token, Secret("face-two"))
    for face in ("face-one", "face-two"):
        world.resolved(use(PayerKeyKind.FACE, face))
    world.service.change_state(token, Event.SUSPEND, key_ref=two.row.ref)
    world.resolved(use(PayerKeyKind.FACE, "face-one"))
    world.resolved(use(PayerKeyKind.TOKEN, token))
    refusal = world.refused(use(PayerKeyKind.FACE, "face-two"))
    assert refusal.reason == Reason.ERROR_REASON_TOKEN_NOT_ACTIVE
    assert refusal.fields["of"] == "key"
    world.service.change_state(token, Event.RESUME, key_ref=two.row.ref)
    world.resolved(use(PayerKeyKind.FACE, "face-two"))


def test_suspending_the_token_stops_all_its_keys(world: World) -> None:
    token = world.token()
    world.service.bind_face(token, Secret("face-one"))
    code = world.service.reserve_code(token).code
    uses = [
        use(PayerKeyKind.TOKEN, token),
        use(PayerKeyKind.FACE, "face-one"),
        use(PayerKeyKind.PAYMENT_CODE, code),
    ]
    for one in uses:
        world.resolved(one)
    world.service.change_state(token, Event.SUSPEND)
    assert [world.refused(one).reason for one in uses] == [Reason.ERROR_REASON_TOKEN_NOT_ACTIVE] * 3
    world.service.change_state(token, Event.RESUME)
    for one in uses:
        world.resolved(one)
    world.service.change_state(token, Event.DELETE)
    assert [world.refused(one).reason for one in uses[2:]] == [Reason.ERROR_REASON_TOKEN_NOT_ACTIVE]
    world.reopen()
    assert world.refused(uses[0]).reason == Reason.ERROR_REASON_TOKEN_NOT_ACTIVE
    assert {key.state for key in world.service.show(token)[1]} == {State.DELETED}


def test_a_deleted_tokens_account_gets_a_new_one_and_its_face_can_be_bound_again(world: World) -> None:
    token = world.token()
    world.service.bind_face(token, Secret("face-one"))
    world.service.change_state(token, Event.DELETE)
    fresh = world.token()
    assert fresh != token
    world.service.bind_face(fresh, Secret("face-one"))
    assert world.resolved(use(PayerKeyKind.FACE, "face-one")).token == fresh


def test_replacing_keeps_account_and_terms(world: World) -> None:
    token = world.token()
    world.service.add_key(token, KeyKind.BARCODE)
    fresh = world.service.replace_token(token, reason="lost phone")
    assert fresh.created
    assert world.service.detokenize(fresh.token) == world.service.detokenize(token)
    assert world.service.show(token)[0].state is State.REPLACED
    assert world.token() == fresh.token
    assert world.service.history(token)[-2].reason == "lost phone"


def test_a_face_leads_to_one_token_only(world: World) -> None:
    one, other = world.token(), world.token("6225880000000001")
    world.service.bind_face(one, Secret("face-one"))
    with pytest.raises(HutongError) as refusal:
        world.service.bind_face(other, Secret("face-one"))
    assert refusal.value.reason == Reason.ERROR_REASON_FACE_ALREADY_ENROLLED


def test_another_process_feels_a_suspension_at_once(world: World) -> None:
    """Two services on one folder stand for two processes: they share nothing but the file."""
    token = world.token()
    other = world.open()
    try:
        one_use = use(PayerKeyKind.TOKEN, token)
        assert not isinstance(other.resolve([one_use], world.clock.now_us)[0], HutongError)
        world.service.change_state(token, Event.SUSPEND)
        assert isinstance(other.resolve([one_use], world.clock.now_us)[0], HutongError)
        fresh = other.register_account(Account("issuer-a", Secret("622588000009")))
        world.resolved(use(PayerKeyKind.TOKEN, fresh.token))
    finally:
        other.close()
