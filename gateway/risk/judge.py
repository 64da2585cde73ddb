"""Judges payments before they are committed: which rules fire, what they require, and which limits the commit must
check.

Runs on the engine's thread, in memory alone. A payment that no rule and no limit concerns costs one look-up in a table.
Velocity rules count, here, the payments that this gateway admitted since it started; what must be exact over all
gateways becomes a condition of the commit.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Final, NamedTuple

from gateway.engine.answer import id_text
from gateway.engine.model import RISK_HOLD, Payment
from gateway.keys import Payee
from gateway.risk.facts import UNKNOWN_AGE_US, Facts
from gateway.risk.rules import APPROVE, DECLINE, HOLD, STEP_UP, Finding, Rule, RuleSet, Velocity
from gateway.risk.tiers import counts_as_static, missing_factor, tier_of
from gateway.risk.windows import Subject, Windows
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.bounded import Bounded
from hutong_contract.errors import HutongError, Reason
from tokenization.interface import Condition, KeyUse, Resolution

COUNTER_BYTES: Final = 16
SEEN_MAX: Final = 65_536
"""Most codes remembered that were presented and not paid; the oldest is dropped first. A code lives about a minute."""
COUNTERS_MAX: Final = 65_536
"""Most names of this day's counters in the cache; beyond it the cache is cleared. About 20 MB."""
_TRANSIT: Final = int(pb.KEY_KIND_TRANSIT)
_MERCHANT_CODE: Final = int(pb.KEY_KIND_MERCHANT_CODE)
_DAILY_LIMIT: Final = int(Reason.ERROR_REASON_DAILY_LIMIT)
_DECLINED: Final = int(Reason.ERROR_REASON_RISK_DECLINED)


class Judgement(NamedTuple):
    """The result of judging a payment."""

    action: str
    finding: Finding
    tier: str
    factor: str = ""
    """The factor that a step-up requires."""
    limits: tuple[Condition, ...] = ()
    """Conditions of the commit, each with the name of its limit."""
    counted: tuple[Subject, ...] = ()
    """Windows that count the payment if it is admitted."""
    fired: tuple[Rule, ...] = ()


class Judge:
    """Applies the rules in force to payments."""

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules
        """Replaced as a whole when the file is read again."""
        self.windows = Windows()
        self.actions: Counter[str] = Counter()
        self.fired: Counter[str] = Counter()
        self._seen: Bounded[bytes, bytes] = Bounded(SEEN_MAX)
        self._batch: dict[bytes, tuple[Judgement, bytes]] = {}
        """Judgements of the batch by request, with the payment that was counted. A request that is in the batch twice
        is judged once, so that both get the same answer."""
        self._counted_spends: set[bytes] = set()
        self._days: tuple[int, dict[tuple[bytes, str, str], tuple[str, bytes]]] = (0, {})
        """A day, and for each account, tier and currency the name and counter of its limit; replaced as a whole."""

    def begin(self) -> None:
        """Begins a batch of payments that will be committed together."""
        if self._batch:
            self._batch.clear()
            self._counted_spends.clear()

    def judge(
        self, payment: Payment, use: KeyUse, resolution: Resolution, payee: Payee, now_us: int
    ) -> HutongError | None:
        """Judges a payment that is about to be committed. Sets its finding and limits, and returns the refusal if it
        must not be committed."""
        rules = self.rules
        kind, account = payment.payer_key, payment.account_ref
        static_code = counts_as_static(
            kind, resolution.made_us, now_us, rules.fresh_us, seen=bool(self._seen) and self._presented_before(payment)
        )
        tier = tier_of(
            kind,
            resolution.assurance_method,
            static_code=static_code,
            scanned=payee.kind == _MERCHANT_CODE,
            static_merchant=payee.static,
            agreement=bool(rules.agreements) and (account, payment.currency) in rules.agreements,
        )
        if kind not in rules.by_kind and rules.limit(tier, payment.currency, account) is None:
            finding = rules.finding(tier, APPROVE, ())
            payment.risk_id, payment.risk = finding.risk_id, finding.text
            self.actions[APPROVE] += 1
            return None
        since_us = resolution.key_since_us
        facts = Facts(
            now_us=now_us,
            key_kind=kind,
            amount_minor=payment.amount_minor,
            currency=payment.currency,
            tier=tier,
            assurance=resolution.assurance_method,
            static_code=static_code,
            static_merchant=payee.static,
            proven=use.cryptogram is not None or kind == _TRANSIT,
            account=account,
            key=payment.key_ref,
            key_age_us=now_us - since_us if since_us else UNKNOWN_AGE_US,
            issuer=payment.debtor,
            merchant=payment.merchant_id,
            category=payee.merchant.mcc,
            terminal=payment.terminal_id,
            caller=payment.caller,
        )
        return self._settle(payment, facts)

    def _settle(self, payment: Payment, facts: Facts) -> HutongError | None:
        request = payment.idempotency + payment.fingerprint
        judged = self._batch.get(request)
        if judged is not None:
            judgement = judged[0]
        else:
            judgement = self.find(facts)
            counted = self._count(payment, judgement, facts.now_us)
            self._batch[request] = judgement, payment.payment_id if counted else b""
            self.actions[judgement.action] += 1
            if judgement.fired:
                self.fired.update(rule.name for rule in judgement.fired)
        payment.risk_id, payment.risk = judgement.finding.risk_id, judgement.finding.text
        payment.counters += judgement.limits
        if judgement.action == APPROVE:
            return None
        error = refusal_of(judgement, payment)
        if judgement.action == HOLD and error is None:
            payment.reason, payment.authorised_minor = RISK_HOLD, payment.amount_minor
            payment.hold_until_us = facts.now_us + self.rules.hold_us
        if error is not None:
            self._remember(payment)
        return error

    def find(self, facts: Facts) -> Judgement:
        """Evaluates the rules in force on these facts. Changes nothing."""
        rules = self.rules
        fired: list[Rule] = []
        limits: list[Condition] = []
        counted: list[Subject] = []
        cap = rules.limit(facts.tier, facts.currency, facts.account)
        if cap is not None:
            limits.append(self._daily(facts, rules, cap))
        # Written out: a call of a function for each rule costs as much as the rule.
        now_us, amount_minor, look = facts.now_us, facts.amount_minor, self.windows.look
        for rule in rules.by_kind.get(facts.key_kind, ()):
            for condition in rule.conditions:
                if not condition(facts):
                    break
            else:
                velocity = rule.velocity
                if velocity is None:
                    fired.append(rule)
                elif velocity.exact:
                    limits.append(_exact(rule, velocity, facts))
                else:
                    subject = (rule.name, velocity.window_us, velocity.subject(facts))
                    counted.append(subject)
                    payments, amount = look(subject, now_us)
                    if 0 < velocity.payments <= payments or 0 < velocity.amount_minor < amount + amount_minor:
                        fired.append(rule)
        if not fired:
            finding = rules.finding(facts.tier, APPROVE, ())
            return Judgement(APPROVE, finding, facts.tier, "", tuple(limits), tuple(counted))
        score = sum(rule.points for rule in fired)
        found = tuple(fired)
        action, factor = rules.action_of(score, found), ""
        if action == STEP_UP:
            factor = missing_factor(facts.key_kind, facts.assurance, static_code=facts.static_code, proven=facts.proven)
            if not factor:
                action = APPROVE  # there is nothing that the payer could add
        finding = rules.finding(facts.tier, action, found)
        return Judgement(action, finding, facts.tier, factor, tuple(limits), tuple(counted), found)

    def _daily(self, facts: Facts, rules: RuleSet, cap: int) -> Condition:
        """The condition of a payer's daily limit for payments of this tier and currency."""
        day = rules.zone.day(facts.now_us)
        of_day, named = self._days
        if of_day != day or len(named) >= COUNTERS_MAX:
            self._days = _, named = day, {}
        key = facts.account, facts.tier, facts.currency
        known = named.get(key)
        if known is None:
            counter = _counter(f"day {day} {facts.tier} {facts.currency} ".encode() + facts.account)
            known = named[key] = f"day {facts.tier}", counter
        limit, counter = known
        return Condition(counter, facts.amount_minor, cap, _DAILY_LIMIT, limit)

    def _count(self, payment: Payment, judgement: Judgement, now_us: int) -> bool:
        """Counts an admitted payment, so that the next one of the same batch is judged with it. A code counts once,
        however often it is shown."""
        if judgement.action not in (APPROVE, HOLD) or not self._counted_spends.isdisjoint(payment.spends):
            return False
        self._counted_spends.update(payment.spends)
        self.windows.count(judgement.counted, now_us, payment.amount_minor)
        return True

    def _presented_before(self, payment: Payment) -> bool:
        """Whether this code was presented for another request, which did not pay."""
        for spend in payment.spends:  # noqa: SIM110 - any() with a generator takes three times as long
            if (self._seen.peek(spend) or payment.idempotency) != payment.idempotency:
                return True
        return False

    def _remember(self, payment: Payment) -> None:
        for spend in payment.spends:
            if spend not in self._seen:
                self._seen.put(spend, payment.idempotency)

    def not_taken(self, payment: Payment, repeat: bool) -> None:
        """Uncounts a payment of the last batch that the journal did not admit. `repeat`: the request was made before;
        otherwise its code has been seen, and counts as a screenshot when it is presented again."""
        judgement, counted = self._batch.get(payment.idempotency + payment.fingerprint, (None, b""))
        if judgement is not None and counted == payment.payment_id:
            for subject in judgement.counted:
                self.windows.take_back(subject, payment.amount_minor)
        if not repeat:
            self._remember(payment)


def refusal_of(judgement: Judgement, payment: Payment) -> HutongError | None:
    """The error for the caller. It does not name the rule, which is the operator's business."""
    if judgement.action == STEP_UP:
        decision = id_text(payment.payment_id)
        return HutongError(Reason.ERROR_REASON_STEP_UP_NEEDED, factor=judgement.factor, decision=decision)
    if judgement.action == DECLINE or (judgement.action == HOLD and payment.hold_until_us):
        # What the caller holds for itself, it could capture itself.
        return HutongError(Reason.ERROR_REASON_RISK_DECLINED, decision=id_text(payment.payment_id))
    return None


def _exact(rule: Rule, velocity: Velocity, facts: Facts) -> Condition:
    who = velocity.subject(facts)
    window = facts.now_us // velocity.window_us
    name = f"velocity {window} {velocity.window_us} {len(rule.name)} {rule.name} ".encode()
    counter = _counter(name + (who if isinstance(who, bytes) else who.encode("utf-8", "surrogatepass")))
    if velocity.payments:
        return Condition(counter, 1, velocity.payments, _DECLINED, rule.name)
    return Condition(counter, facts.amount_minor, velocity.amount_minor, _DECLINED, rule.name)


def _counter(name: bytes) -> bytes:
    return hashlib.blake2b(name, digest_size=COUNTER_BYTES, person=b"hutong risk").digest()
