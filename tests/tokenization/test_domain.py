"""Every dimension of a domain, allowed and refused, on tokens and on keys; budgets and counts as exact conditions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hutong_contract.errors import HutongError, Reason
from hutong_contract.payment_code import offline_code
from hutong_contract.secret import Secret
from tests.tokenization.world import World, use
from tokenization.domain import Budget, Domain, Policy
from tokenization.interface import PayerKeyKind, Resolution
from tokenization.key_kinds import KeyKind

DAY_S = 86_400
# Domain, facts that it allows, facts that it refuses, the dimension named.
CASES: list[tuple[Domain, dict[str, Any], dict[str, Any], str]] = [
    (Domain(channels=frozenset({"face"})), {}, {"channel": "token"}, "channel"),
    (Domain(merchants=frozenset({"merchant-1", "m2"})), {}, {"merchant_id": "merchant-9"}, "merchant"),
    (Domain(categories=frozenset({"5411"})), {}, {"merchant_category": "7995"}, "merchant_category"),
    (Domain(categories=frozenset({"5411"})), {}, {"merchant_category": ""}, "merchant_category"),
    (Domain(currency="CNY"), {}, {"currency": "USD"}, "currency"),
    (Domain(amount_max_minor=1_000), {"amount_minor": 1_000}, {"amount_minor": 1_001}, "amount"),
]


@pytest.mark.parametrize(("domain", "allowed", "refused", "dimension"), CASES)
@pytest.mark.parametrize("place", ["token", "key"])
def test_each_dimension(
    world: World, domain: Domain, allowed: dict[str, Any], refused: dict[str, Any], dimension: str, place: str
) -> None:
    token = world.token(domain=domain if place == "token" else None)
    world.service.bind_face(token, Secret("face-one"), domain if place == "key" else None)
    world.resolved(use(PayerKeyKind.FACE, "face-one", **allowed))
    refusal = world.refused(use(PayerKeyKind.FACE, "face-one", **refused))
    assert refusal.fields["dimension"] == dimension
    above = Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT
    assert refusal.reason == (above if dimension == "amount" else Reason.ERROR_REASON_TOKEN_DOMAIN)


def test_a_keys_own_expiry(world: World) -> None:
    token = world.token()
    world.service.add_key(token, KeyKind.FACE, reference=Secret("face-one"), expires_us=world.clock.now_us + 1_000_000)
    world.resolved(use(PayerKeyKind.FACE, "face-one"))
    world.clock.move_s(1)
    refusal = world.refused(use(PayerKeyKind.FACE, "face-one"))
    assert (refusal.reason, refusal.fields["state"]) == (Reason.ERROR_REASON_TOKEN_NOT_ACTIVE, "expired")
    world.resolved(use(PayerKeyKind.TOKEN, token))


def test_device(world: World) -> None:
    token = world.token()
    world.service.provision(token, "phone-1")
    code = _offline(world, token, "phone-1")
    assert world.refused(use(PayerKeyKind.PAYMENT_CODE, code, device_id="phone-2")).fields["dimension"] == "device"
    world.resolved(use(PayerKeyKind.PAYMENT_CODE, code, device_id="phone-1"))
    world.resolved(use(PayerKeyKind.PAYMENT_CODE, code))


def _offline(world: World, token: Secret[str], device: str) -> str:
    made = world.service.provision(token, device)
    return offline_code(made.alias, made.day_key.reveal(), world.clock.now_us, made.suite)


@pytest.mark.parametrize("amount", [0, -1])
def test_amounts_are_positive(world: World, amount: int) -> None:
    refusal = world.refused(use(PayerKeyKind.TOKEN, world.token(), amount_minor=amount))
    assert refusal.reason == Reason.ERROR_REASON_AMOUNT_NOT_POSITIVE


class Counters:
    """What a journal does with conditions, in a dictionary."""

    def __init__(self) -> None:
        self.used: dict[bytes, int] = {}

    def admit(self, resolution: Resolution) -> int | None:
        for counter in resolution.counters:
            if self.used.get(counter.counter, 0) + counter.add > counter.cap:
                return counter.reason
        for counter in resolution.counters:
            self.used[counter.counter] = self.used.get(counter.counter, 0) + counter.add
        return None


def test_count_and_total_of_a_key(world: World) -> None:
    token = world.token()
    domain = Domain(count_max=3, total_max_minor=2_500, currency="CNY")
    world.service.bind_face(token, Secret("face-one"), domain)
    world.service.bind_face(token, Secret("face-two"), domain)
    journal = Counters()
    one = use(PayerKeyKind.FACE, "face-one", amount_minor=1_000)
    assert journal.admit(world.resolved(one)) is None
    assert journal.admit(world.resolved(one)) is None
    assert journal.admit(world.resolved(one)) == Reason.ERROR_REASON_TOKEN_BUDGET_SPENT
    assert journal.admit(world.resolved(one._replace(amount_minor=500))) is None
    assert journal.admit(world.resolved(one._replace(amount_minor=1))) == Reason.ERROR_REASON_TOKEN_BUDGET_SPENT
    assert journal.admit(world.resolved(use(PayerKeyKind.FACE, "face-two"))) is None, "another key's own count"


def test_all_keys_share_the_budget(world: World) -> None:
    token = world.token(budget=Budget(2_000, "CNY", period_days=1))
    world.service.bind_face(token, Secret("face-one"))
    code = world.service.reserve_code(token).code
    journal = Counters()
    assert journal.admit(world.resolved(use(PayerKeyKind.FACE, "face-one"))) is None
    assert journal.admit(world.resolved(use(PayerKeyKind.PAYMENT_CODE, code))) is None
    spent = world.resolved(use(PayerKeyKind.TOKEN, token, amount_minor=1))
    assert journal.admit(spent) == Reason.ERROR_REASON_TOKEN_BUDGET_SPENT
    assert world.refused(use(PayerKeyKind.TOKEN, token, currency="USD")).fields["dimension"] == "currency"
    too_much = world.refused(use(PayerKeyKind.TOKEN, token, amount_minor=2_001))
    assert too_much.reason == Reason.ERROR_REASON_TOKEN_BUDGET_SPENT
    world.clock.move_s(DAY_S)
    assert journal.admit(world.resolved(use(PayerKeyKind.TOKEN, token))) is None, "a new day, a new budget"


def test_counters_of_different_tokens_have_different_names(world: World) -> None:
    budget = Budget(2_000, "CNY")
    tokens = [world.token("622588000001", budget=budget), world.token("622588000002", budget=budget)]
    names = {world.resolved(use(PayerKeyKind.TOKEN, token)).counters[0].counter for token in tokens}
    assert len(names) == 2


def test_domain_can_be_narrowed_and_widened(world: World) -> None:
    token = world.token()
    world.resolved(use(PayerKeyKind.TOKEN, token))
    world.service.update_terms(token, domain=Domain(amount_max_minor=10))
    assert world.refused(use(PayerKeyKind.TOKEN, token)).reason == Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT
    world.service.update_terms(token, domain=Domain())
    world.reopen()
    world.resolved(use(PayerKeyKind.TOKEN, token))


@pytest.mark.parametrize(
    "domain",
    [
        Domain(channels=frozenset({"carrier pigeon"})),
        Domain(categories=frozenset({"54"})),
        Domain(merchants=frozenset({""})),
        Domain(merchants=frozenset(str(number) for number in range(300))),
        Domain(amount_max_minor=-1),
        Domain(amount_max_minor=2**60),
        Domain(count_max=-1),
        Domain(total_max_minor=5),
        Domain(currency="cny"),
        Domain(currency="EURO"),
        Domain(cryptogram_required=True),
    ],
)
def test_senseless_domains_are_refused(world: World, domain: Domain) -> None:
    with pytest.raises(HutongError) as refusal:
        world.token(domain=domain)
    assert refusal.value.reason == Reason.ERROR_REASON_FIELD_INVALID
    assert refusal.value.fields["field"].startswith("domain.")


@pytest.mark.parametrize("budget", [Budget(0, "CNY"), Budget(5, ""), Budget(5, "CNY", -1), Budget(5, "CNY", 400)])
def test_senseless_budgets_are_refused(world: World, budget: Budget) -> None:
    with pytest.raises(HutongError, match="budget"):
        world.token(budget=budget)


def test_policies_survive_their_encoding() -> None:
    policy = Policy(
        "issuer-a", ("10000000002",), Domain(frozenset({"face", "token"}), frozenset({"m"}), currency="CNY"),
        Budget(1, "CNY", 2), "12",
    )  # fmt: skip
    assert Policy.decode(policy.encode()) == policy
    assert Policy.decode(Policy().encode()) == Policy()
    same = replace(policy, domain=replace(policy.domain, channels=frozenset({"token", "face"})))
    assert same.encode() == policy.encode()


def test_assurance_is_the_presentations_or_the_keys_or_the_tokens(world: World) -> None:
    token = world.token(assurance_method="10")
    world.service.add_key(token, KeyKind.FACE, reference=Secret("face-one"), assurance_method="12")
    assert world.resolved(use(PayerKeyKind.TOKEN, token)).assurance_method == "10"
    assert world.resolved(use(PayerKeyKind.FACE, "face-one")).assurance_method == "12"
    assert world.resolved(use(PayerKeyKind.FACE, "face-one", assurance_method="11")).assurance_method == "11"
    with pytest.raises(HutongError, match="assurance_method"):
        world.token("622588000009", assurance_method="99")
