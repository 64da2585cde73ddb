"""Resolves payers' keys from memory: the token service's answers to the gateway.

One function for each kind of key finds the token and the routing key. Then all kinds go through the same checks:
requestor, states, both domains, device, and what the payment uses up.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from typing import Final

from hutong_contract import cryptogram as cryptogram_format
from hutong_contract import transit
from hutong_contract.bounded import Bounded
from hutong_contract.errors import HutongError, Reason
from hutong_contract.payment_code import is_payment_code
from hutong_contract.secret import Secret
from tokenization import numbers
from tokenization.codes import CodeReader
from tokenization.domain import Domain, Policy, check_use
from tokenization.index import ERASED, Index, KeyEntry
from tokenization.interface import Condition, KeyUse, PayerKeyKind, Resolution
from tokenization.key_kinds import KeyKind
from tokenization.lifecycle import State, state_at
from tokenization.purposes import Purposes
from tokenization.records import REF_BYTES, open_token
from tokenization.routing_keys import device_message, face_message, number_message

SUBMIT_WITHIN_US: Final = 7 * 86_400_000_000
"""How late a gate may submit a transit code, in microseconds."""
CERTIFICATES_MAX: Final = 10_000
"""Most verified transit certificates in the cache; the oldest is dropped first."""
_CODE_SPENT: Final = int(Reason.ERROR_REASON_CODE_SPENT)
_CRYPTOGRAM_INVALID: Final = int(Reason.ERROR_REASON_CRYPTOGRAM_INVALID)
_BUDGET_SPENT: Final = int(Reason.ERROR_REASON_TOKEN_BUDGET_SPENT)
_ACTIVE: Final = int(State.ACTIVE)
Found = tuple[int, KeyEntry | None, bytes | None, int, int]
"""Account's slot, routing key (None: the token itself), what is spent, reason when it was spent before, when what was
presented was made (microseconds; 0: it does not change)."""


class Resolver:
    """Answers uses of keys. Not for two threads at once."""

    def __init__(self, index: Index, purposes: Purposes, codes: CodeReader) -> None:
        self._index = index
        self._purposes = purposes
        self._codes = codes
        self._certificates: Bounded[bytes, bool] = Bounded(CERTIFICATES_MAX)
        self._finders: dict[PayerKeyKind, Callable[[KeyUse, int], Found]] = {
            PayerKeyKind.TOKEN: self._token,
            PayerKeyKind.PAYMENT_CODE: self._payment_code,
            PayerKeyKind.CONSUMER_CODE: self._consumer_code,
            PayerKeyKind.FACE: self._face,
            PayerKeyKind.TRANSIT: self._transit,
        }

    def resolve(self, uses: Sequence[KeyUse], now_us: int) -> list[Resolution | HutongError]:
        """Answers each use in its place."""
        answers: list[Resolution | HutongError] = []
        for use in uses:
            try:
                answers.append(self._resolve(use, now_us))
            except HutongError as refusal:
                answers.append(refusal)
            except UnicodeError:
                answers.append(HutongError(Reason.ERROR_REASON_TOKEN_MALFORMED))
        return answers

    def _resolve(self, use: KeyUse, now_us: int) -> Resolution:
        if use.amount_minor <= 0:
            raise HutongError(Reason.ERROR_REASON_AMOUNT_NOT_POSITIVE)
        slot, key, spend, spend_reason, made_us = self._finders[use.kind](use, now_us)
        index = self._index
        policy = index.policies[index.account_policies[slot]]
        self._check_states(slot, key, now_us)
        check_use(policy.domain, use)
        token_ref = index.ref_at(slot)
        counters = self._counters(policy, policy.domain, token_ref, use, now_us)
        amount_max = policy.domain.amount_max_minor
        assurance = policy.assurance_method
        if key is None:
            token, key_ref = use.value, token_ref
        else:
            domain = key.policy.domain
            check_use(domain, use)
            _check_device(key, use)
            key_ref = key.row.ref
            counters += self._counters(None, domain, key_ref, use, now_us)
            amount_max = min(amount_max or domain.amount_max_minor, domain.amount_max_minor or amount_max)
            if key.row.assurance_method != "00":
                assurance = key.row.assurance_method
            token = Secret(open_token(self._purposes.token, index.sealed_at(slot), token_ref))
        return Resolution(
            policy.issuer_id,
            token,
            token_ref,
            key_ref,
            f"{index.last_fours[slot]:04d}",
            use.assurance_method or assurance,
            (spend,) if spend is not None else (),
            counters,
            amount_max or None,
            spend_reason,
            made_us,
            0 if key is None else key.row.created_us,
        )

    def _check_states(self, slot: int, key: KeyEntry | None, now_us: int) -> None:
        state = self._index.states[slot]
        if state != _ACTIVE or now_us >= self._index.expiries[slot]:
            if state == ERASED:
                raise HutongError(Reason.ERROR_REASON_ACCOUNT_ERASED)
            found = state_at(State(state), self._index.expiries[slot], now_us)
            raise HutongError(Reason.ERROR_REASON_TOKEN_NOT_ACTIVE, of="token", state=found.name.lower())
        if key is not None and (key.row.state is not State.ACTIVE or now_us >= key.row.expires_us):
            found = state_at(key.row.state, key.row.expires_us, now_us)
            raise HutongError(Reason.ERROR_REASON_TOKEN_NOT_ACTIVE, of="key", state=found.name.lower())

    def _counters(
        self, policy: Policy | None, domain: Domain, ref: bytes, use: KeyUse, now_us: int
    ) -> tuple[Condition, ...]:
        """The conditions of this use: what it adds to the budget, the count and the total of a token or key."""
        budget = policy.budget if policy is not None else None
        if budget is None and not domain.count_max and not domain.total_max_minor:
            return ()
        counters = []
        if budget is not None:
            if use.currency != budget.currency:
                raise HutongError(Reason.ERROR_REASON_TOKEN_DOMAIN, dimension="currency")
            name = b"budget %d " % budget.window(now_us)
            counters.append(self._counter(name + ref, use.amount_minor, budget.amount_minor))
        if domain.count_max:
            counters.append(self._counter(b"count " + ref, 1, domain.count_max))
        if domain.total_max_minor:
            counters.append(self._counter(b"total " + ref, use.amount_minor, domain.total_max_minor))
        return tuple(counters)

    def _counter(self, name: bytes, add: int, cap: int) -> Condition:
        if add > cap:
            raise HutongError(Reason.ERROR_REASON_TOKEN_BUDGET_SPENT)
        return Condition(self._purposes.counter(name)[:REF_BYTES], add, cap, _BUDGET_SPENT)

    # Finders: one for each kind of key.

    def _token(self, use: KeyUse, now_us: int) -> Found:
        number = use.value.reveal()
        if number.startswith(numbers.ACCOUNT_RANGE.bin):
            slot = self._index.slot_of(self._purposes.reference(number.encode()))
            if slot is not None:
                policy = self._index.policies[self._index.account_policies[slot]]
                self._check_requestor(policy, use)
                return slot, None, None, _CODE_SPENT, 0
        key = self._by_number(number, (KeyKind.DEVICE,))
        self._check_requestor(key.policy, use)
        return self._device(key, number, use, now_us)

    def _consumer_code(self, use: KeyUse, now_us: int) -> Found:
        number = use.value.reveal()
        if is_payment_code(number):
            return self._payment_code(use, now_us)
        key = self._by_number(number, (KeyKind.BARCODE, KeyKind.DEVICE))
        if use.requestor_id:
            self._check_requestor(key.policy, use)
        if key.row.kind == KeyKind.DEVICE:
            return self._device(key, number, use, now_us)
        return key.slot, key, None, _CODE_SPENT, 0

    def _by_number(self, number: str, kinds: tuple[KeyKind, ...]) -> KeyEntry:
        key = self._index.key_by_lookup(self._purposes.lookup(number_message(number)))
        if key is None:
            known = numbers.is_token(number)
            raise HutongError(Reason.ERROR_REASON_TOKEN_UNKNOWN if known else Reason.ERROR_REASON_TOKEN_MALFORMED)
        if key.row.kind not in kinds:
            raise HutongError(Reason.ERROR_REASON_TOKEN_DOMAIN, dimension="channel")
        return key

    def _check_requestor(self, policy: Policy, use: KeyUse) -> None:
        """Checks the requestor: a token that names requestors accepts only those, and an unknown requestor is
        refused."""
        trid = use.requestor_id
        if (policy.requestors and trid not in policy.requestors) or (trid and trid not in self._index.requestors):
            raise HutongError(Reason.ERROR_REASON_REQUESTOR_NOT_ALLOWED, action="present")

    def _device(self, key: KeyEntry, number: str, use: KeyUse, now_us: int) -> Found:
        """A device token: its cryptogram must verify, and each counter is spent once."""
        proof = use.cryptogram
        if proof is None:
            raise HutongError(Reason.ERROR_REASON_TOKEN_DOMAIN, dimension="cryptogram")
        row = key.row
        device_key = self._purposes.device(device_message(row.ref, row.device_id))
        try:
            expected = cryptogram_format.cryptogram(
                number, device_key, use.amount_minor, use.currency, proof.counter, proof.unpredictable_number,
                self._purposes.suite.name,
            )  # fmt: skip
        except ValueError:
            raise HutongError(Reason.ERROR_REASON_CRYPTOGRAM_INVALID) from None
        if not hmac.compare_digest(expected, proof.value):
            raise HutongError(Reason.ERROR_REASON_CRYPTOGRAM_INVALID)
        spend = self._purposes.spend(b"cryptogram %d " % proof.counter + row.ref)[:REF_BYTES]
        return key.slot, key, spend, _CRYPTOGRAM_INVALID, now_us

    def _payment_code(self, use: KeyUse, now_us: int) -> Found:
        key, spend, made_us = self._codes.read(use, now_us)
        return key.slot, key, spend, _CODE_SPENT, made_us

    def _face(self, use: KeyUse, now_us: int) -> Found:
        key = self._index.key_by_lookup(self._purposes.lookup(face_message(use.value.reveal())))
        if key is None or key.row.kind != KeyKind.FACE:
            raise HutongError(Reason.ERROR_REASON_TOKEN_UNKNOWN)
        return key.slot, key, None, _CODE_SPENT, 0

    def _transit(self, use: KeyUse, now_us: int) -> Found:
        try:
            code = transit.parse_code(use.value.reveal())
            self._check_certificate(code)
            transit.check_signature(code)
        except transit.TransitCodeError as error:
            raise HutongError(Reason.ERROR_REASON_CODE_UNKNOWN, detail=error.reason) from None
        if code.time_us > now_us + transit.SKEW_US or code.time_us < now_us - SUBMIT_WITHIN_US:
            raise HutongError(Reason.ERROR_REASON_CODE_EXPIRED)
        certificate = code.certificate
        if use.currency != certificate.currency:
            raise HutongError(Reason.ERROR_REASON_TOKEN_DOMAIN, dimension="currency")
        if use.amount_minor > certificate.fare_max_minor:
            raise HutongError(Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT, dimension="amount")
        key = self._index.key_by_ref(certificate.credential)
        if key is None or key.row.kind != KeyKind.TRANSIT:
            raise HutongError(Reason.ERROR_REASON_CODE_UNKNOWN)
        # Named by what was signed, not by the signature: signing the same statement again is the same code.
        spend = self._purposes.spend(b"transit %d " % code.time_us + certificate.credential)[:REF_BYTES]
        return key.slot, key, spend, _CODE_SPENT, code.time_us

    def _check_certificate(self, code: transit.TransitCode) -> None:
        """Verifies a certificate once and caches it: 88 microseconds that a commuter's second ride saves."""
        raw = code.certificate_raw
        if self._certificates.get(raw):
            return
        transit.check_certificate(code, {self._purposes.transit_key_id: self._purposes.transit_public})
        self._certificates.put(raw, True)


def _check_device(key: KeyEntry, use: KeyUse) -> None:
    """Checks that a named device is the key's own. If none is named, the cryptogram, MAC or signature proves the
    device."""
    if key.row.device_id and use.device_id and use.device_id != key.row.device_id:
        raise HutongError(Reason.ERROR_REASON_TOKEN_DOMAIN, dimension="device")
