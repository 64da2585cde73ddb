"""Device tokens with cryptograms, barcode credentials, transit codes, requestors: what opens and what does not."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
import segno
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from hutong_contract import transit
from hutong_contract.cryptogram import cryptogram, message
from hutong_contract.errors import HutongError, Reason
from hutong_contract.names import GATEWAY_TRID, OPERATOR_TRID, WALLET_TRID
from hutong_contract.secret import Secret
from tests.tokenization.world import START_US, World, use
from tokenization import numbers
from tokenization.interface import Account, Cryptogram, KeyUse, PayerKeyKind
from tokenization.key_kinds import KeyKind
from tokenization.lifecycle import Event
from tokenization.requestors import Action, Requestor, Role, check_action
from tokenization.routing_keys import NewKey

WALLET_2 = "20000000001"


def proof(world: World, key: NewKey, counter: int = 1, amount: int = 1_000, currency: str = "CNY") -> Cryptogram:
    assert key.number is not None
    assert key.device_key is not None
    value = cryptogram(key.number.reveal(), key.device_key.reveal(), amount, currency, counter, 77, world.service.suite)
    return Cryptogram(value, counter, 77)


def presented(key: NewKey, proof: Cryptogram | None, **facts: object) -> KeyUse:
    assert key.number is not None
    return use(PayerKeyKind.TOKEN, key.number, cryptogram=proof, **facts)


def test_a_device_token_pays_with_its_cryptogram_once(world: World) -> None:
    token = world.token()
    key = world.service.add_key(token, KeyKind.DEVICE, device_id="phone")
    one = world.resolved(presented(key, proof(world, key)))
    assert one.token == token
    assert one.spend_reason == Reason.ERROR_REASON_CRYPTOGRAM_INVALID
    assert world.resolved(presented(key, proof(world, key))).spends == one.spends, "a replay spends the same again"
    assert world.resolved(presented(key, proof(world, key, 2))).spends != one.spends
    world.reopen()
    assert world.resolved(presented(key, proof(world, key))).spends == one.spends


def test_wrong_cryptograms(world: World) -> None:
    token = world.token()
    key = world.service.add_key(token, KeyKind.DEVICE, device_id="phone")
    other = world.service.add_key(token, KeyKind.DEVICE, device_id="watch")
    good = proof(world, key)
    wrong = [
        presented(key, good, amount_minor=1_001),
        presented(key, good, currency="USD"),
        presented(key, good, currency="EURO"),
        presented(key, replace(good, counter=2)),
        presented(key, replace(good, counter=-1)),
        presented(key, replace(good, unpredictable_number=78)),
        presented(key, replace(good, value=good.value[:-1])),
        presented(key, replace(good, value=b"")),
        presented(key, proof(world, other)),
    ]
    assert {world.refused(one).reason for one in wrong} == {Reason.ERROR_REASON_CRYPTOGRAM_INVALID}
    assert world.refused(presented(key, None)).fields["dimension"] == "cryptogram"
    assert world.refused(presented(key, good, device_id="watch")).fields["dimension"] == "device"
    world.resolved(presented(key, good, device_id="phone"))


@given(
    st.integers(0, 2**63 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**63 - 1),
    st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_no_two_payments_share_a_cryptograms_message(a: int, b: int, c: int, d: int, e: int, f: int) -> None:
    same = (a, b, c) == (d, e, f)
    assert (message("9", a, "CNY", b, c) == message("9", d, "CNY", e, f)) == same


def test_a_device_key_needs_a_device(world: World) -> None:
    with pytest.raises(HutongError, match="device_id"):
        world.service.add_key(world.token(), KeyKind.DEVICE)


def test_a_barcode_number_is_capped_and_no_token(world: World) -> None:
    """It does not change, so it counts as a static code: 500 yuan, and only in the channel where it is shown."""
    token = world.token()
    key = world.service.add_key(token, KeyKind.BARCODE)
    assert key.number is not None
    number = key.number.reveal()
    assert numbers.is_token(number)
    assert world.resolved(use(PayerKeyKind.CONSUMER_CODE, number, amount_minor=50_000)).token == token
    above = world.refused(use(PayerKeyKind.CONSUMER_CODE, number, amount_minor=50_001))
    assert above.reason == Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT
    assert world.refused(use(PayerKeyKind.TOKEN, number)).fields["dimension"] == "channel"
    assert world.refused(use(PayerKeyKind.CONSUMER_CODE, token)).reason == Reason.ERROR_REASON_TOKEN_UNKNOWN
    code = world.service.reserve_code(token).code
    assert world.resolved(use(PayerKeyKind.CONSUMER_CODE, code)).spends, "payment codes inside EMV codes"
    world.service.change_state(token, Event.DELETE, key_ref=key.row.ref)
    assert world.refused(use(PayerKeyKind.CONSUMER_CODE, number)).reason == Reason.ERROR_REASON_TOKEN_NOT_ACTIVE


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", Reason.ERROR_REASON_TOKEN_MALFORMED),
        ("9156", Reason.ERROR_REASON_TOKEN_MALFORMED),
        ("9156101234567890123", Reason.ERROR_REASON_TOKEN_MALFORMED),
        ("\ud800", Reason.ERROR_REASON_TOKEN_MALFORMED),
        ("4111111111111111", Reason.ERROR_REASON_TOKEN_UNKNOWN),
        ("915610" + "0" * 12 + numbers.check_digit("915610" + "0" * 12), Reason.ERROR_REASON_TOKEN_UNKNOWN),
    ],
)
def test_numbers_that_lead_nowhere(world: World, value: str, reason: int) -> None:
    assert world.refused(use(PayerKeyKind.TOKEN, value)).reason == reason
    if value == "\ud800":
        assert world.refused(use(PayerKeyKind.FACE, value)).reason == reason


def test_a_batch_is_answered_in_place(world: World) -> None:
    tokens = [world.token(f"622588{number:06d}") for number in range(20)]
    uses = [use(PayerKeyKind.TOKEN, token) for token in tokens]
    uses[7] = use(PayerKeyKind.TOKEN, "1")
    answers = world.service.resolve(uses, world.clock.now_us)
    assert [isinstance(answer, HutongError) for answer in answers] == [at == 7 for at in range(20)]
    pairs = zip(answers, tokens, strict=True)
    assert sum(not isinstance(one, HutongError) and one.token == token for one, token in pairs) == 19
    assert world.service.resolve([], world.clock.now_us) == []


class Rider:
    """A phone with a transit credential, and what a gate knows."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.token = world.token()
        self.key = ec.generate_private_key(ec.SECP256R1())
        point = transit.compress(self.key.public_key())
        self.made, self.certificate = world.service.issue_transit(self.token, point, 500, "CNY")
        public = world.service.transit_public_key
        self.gate = {transit.issuer_key_id(public): public}

    def code(self, time_us: int | None = None) -> str:
        return transit.build_code(self.certificate, self.key, self.world.clock.now_us if time_us is None else time_us)

    def opens(self, code: str, fare: int = 300, currency: str = "CNY") -> str:
        try:
            transit.open_gate(code, self.gate, self.world.clock.now_us, fare, currency)
        except transit.TransitCodeError as error:
            return error.reason
        return "open"

    def submit(self, code: str, fare: int = 300, currency: str = "CNY") -> KeyUse:
        return use(PayerKeyKind.TRANSIT, code, amount_minor=fare, currency=currency)


def test_a_gate_opens_without_a_network_and_the_fare_is_collected_once(world: World) -> None:
    rider = Rider(world)
    code = rider.code()
    assert rider.opens(code) == "open"
    world.clock.move_s(3_600)
    first = world.resolved(rider.submit(code))
    assert first.token == rider.token
    again = world.resolved(rider.submit(code))
    assert again.spends == first.spends, "the same code at two gates: the journal lets one through"
    resigned = transit.build_code(rider.certificate, rider.key, world.clock.now_us - 3_600_000_000)
    assert resigned != code
    assert world.resolved(rider.submit(resigned)).spends == first.spends, "signed again, still the same statement"
    assert world.resolved(rider.submit(rider.code())).spends != first.spends


def test_what_a_gate_refuses(world: World) -> None:
    rider, stranger = Rider(world), ec.generate_private_key(ec.SECP256R1())
    now = world.clock.now_us
    assert rider.opens(rider.code(now - transit.WINDOW_US)) == "open"
    assert rider.opens(rider.code(now - transit.WINDOW_US - 1)) == "stale"
    assert rider.opens(rider.code(now + transit.SKEW_US + 1)) == "early"
    assert rider.opens(rider.code(), fare=501) == "fare"
    assert rider.opens(rider.code(), currency="USD") == "fare"
    assert rider.opens(transit.build_code(rider.certificate, stranger, now)) == "signature"
    forged = bytearray(rider.certificate)
    forged[-70] ^= 1
    assert rider.opens(transit.build_code(bytes(forged), rider.key, now)) in ("certificate", "malformed")
    own = replace(transit.parse_code(rider.code()).certificate, fare_max_minor=10**6)
    assert rider.opens(transit.build_code(transit.sign_certificate(own, stranger), rider.key, now)) == "certificate"
    unknown = replace(own, issuer_key_id=bytes(8))
    assert rider.opens(transit.build_code(transit.sign_certificate(unknown, stranger), rider.key, now)) == "issuer"
    world.clock.move_s(8 * 86_400)
    assert rider.opens(rider.code()) == "validity"


@given(st.text(max_size=300))
def test_any_text_is_refused_in_order(text: str) -> None:
    for one in (text, transit.PREFIX + text, (transit.PREFIX + text.ljust(279, "A"))[:284]):
        with pytest.raises(transit.TransitCodeError):
            transit.open_gate(one, {}, START_US, 1, "CNY")


def test_every_changed_bit_of_a_code_is_refused(world: World) -> None:
    rider = Rider(world)
    raw = transit.parse_code(rider.code()).raw
    for at in range(0, len(raw) * 8, 13):
        changed = bytearray(raw)
        changed[at // 8] ^= 1 << at % 8
        text = transit.PREFIX + base64.urlsafe_b64encode(bytes(changed)).decode().rstrip("=")
        assert rider.opens(text) != "open"
        assert isinstance(world.resolve(rider.submit(text)), HutongError)


def test_a_code_fits_its_symbol(world: World) -> None:
    symbol = segno.make(Rider(world).code(), error="m", mode="byte", boost_error=False)
    assert isinstance(symbol.version, int)
    assert symbol.version <= 16


def test_what_is_refused_when_submitted(world: World) -> None:
    rider = Rider(world)
    code = rider.code()
    assert world.refused(rider.submit(code, fare=501)).reason == Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT
    assert world.refused(rider.submit(code, currency="USD")).fields["dimension"] == "currency"
    assert world.refused(rider.submit("HTT1.")).reason == Reason.ERROR_REASON_CODE_UNKNOWN
    world.service.change_state(rider.token, Event.SUSPEND, key_ref=rider.made.row.ref)
    assert world.refused(rider.submit(code)).reason == Reason.ERROR_REASON_TOKEN_NOT_ACTIVE
    world.service.change_state(rider.token, Event.RESUME, key_ref=rider.made.row.ref)
    world.clock.move_s(7 * 86_400 + 1)
    assert world.refused(rider.submit(code)).reason == Reason.ERROR_REASON_CODE_EXPIRED
    for point, fare in (
        (b"", 1),
        (bytes(33), 1),
        (b"\x02" + b"\xff" * 32, 1),
        (transit.compress(rider.key.public_key()), 0),
    ):
        with pytest.raises(HutongError, match="INVALID"):
            world.service.issue_transit(rider.token, point, fare, "CNY")


def test_a_requestors_token_is_presented_by_it_alone(world: World) -> None:
    world.service.register_requestor(Requestor(WALLET_2, "second wallet", Role.WALLET))
    account = Account("issuer-a", Secret("622588000001"))
    made = world.service.register_account(account, by=WALLET_TRID)
    world.resolved(use(PayerKeyKind.TOKEN, made.token, requestor_id=WALLET_TRID))
    for wrong in ("", WALLET_2, "99999999999", "x"):
        refusal = world.refused(use(PayerKeyKind.TOKEN, made.token, requestor_id=wrong))
        assert refusal.reason == Reason.ERROR_REASON_REQUESTOR_NOT_ALLOWED
    with pytest.raises(HutongError):
        world.service.change_state(made.token, Event.SUSPEND, by=WALLET_2)
    assert world.service.register_account(account, by=WALLET_2).token == made.token
    world.resolved(use(PayerKeyKind.TOKEN, made.token, requestor_id=WALLET_2))
    world.service.change_state(made.token, Event.SUSPEND, by=WALLET_2)
    assert [event.kind for event in world.service.history(made.token, by=WALLET_TRID)] == [
        "requestor_added",
        "suspended",
    ]
    open_to_all = world.token("622588000002")
    world.resolved(use(PayerKeyKind.TOKEN, open_to_all))
    assert (
        world.refused(use(PayerKeyKind.TOKEN, open_to_all, requestor_id="99999999999")).name == "REQUESTOR_NOT_ALLOWED"
    )


MANAGE = "request show change_state replace update_domain create_key"
RIGHTS = {
    Role.WALLET: f"{MANAGE} reserve_code provision issue_transit",
    Role.MERCHANT: MANAGE,
    Role.ISSUER: f"{MANAGE} detokenize erase",
    Role.GATEWAY: "resolve",
    Role.OPERATOR: "show change_state resolve rotate_keys erase operate",
}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("action", Action)
def test_roles(role: Role, action: Action) -> None:
    requestor = Requestor("20000000009", "somebody", role)
    if action.value in RIGHTS[role].split():
        check_action(requestor, action)
    else:
        with pytest.raises(HutongError) as refusal:
            check_action(requestor, action)
        assert refusal.value.fields["action"] == action.value


def test_issuers_see_their_own_accounts_and_operators_no_numbers(world: World) -> None:
    world.service.register_requestor(Requestor("30000000001", "bank a", Role.ISSUER, "issuer-a"))
    own, others = world.token("622588000001"), world.token("622588000002", "issuer-b")
    assert world.service.detokenize(own, by="30000000001") == Secret("622588000001")
    assert world.service.history(own)[-1].requestor == "30000000001"
    for token, by in ((others, "30000000001"), (own, OPERATOR_TRID), (own, GATEWAY_TRID), (own, "99999999999")):
        with pytest.raises(HutongError) as refusal:
            world.service.detokenize(token, by=by)
        assert refusal.value.reason == Reason.ERROR_REASON_REQUESTOR_NOT_ALLOWED


@pytest.mark.parametrize("trid", ["", "1234567890", "123456789012", "1234567890x"])
def test_trids_have_eleven_digits(world: World, trid: str) -> None:
    with pytest.raises(HutongError, match="requestor_id"):
        world.service.register_requestor(Requestor(trid, "x", Role.WALLET))


def test_a_requestors_secret(world: World) -> None:
    world.service.register_requestor(Requestor(WALLET_2, "second", Role.WALLET), Secret("swordfish"))
    assert world.service.authenticate(WALLET_2, "swordfish").name == "second"
    for wrong in ("", "Swordfish"):
        with pytest.raises(HutongError):
            world.service.authenticate(WALLET_2, wrong)
    assert world.service.authenticate(WALLET_TRID, "").role is Role.WALLET
