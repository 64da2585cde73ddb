"""Conversion between the service's values and the messages of hutong.tokenization.v1. Pure."""

from __future__ import annotations

from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from hutong.tokenization.v1 import token_pb2 as pb
from hutong_contract.errors import HutongError, Reason
from hutong_contract.secret import Secret
from tokenization.domain import Budget, Domain, Policy
from tokenization.interface import Cryptogram, KeyUse, PayerKeyKind, Resolution
from tokenization.lifecycle import Event
from tokenization.rotation import KeyStatus
from tokenization.service import TokenName
from tokenization.views import HistoryEvent, KeyView, TokenView

CHANGES: Final = {
    pb.STATE_CHANGE_ACTIVATE: Event.ACTIVATE,
    pb.STATE_CHANGE_SUSPEND: Event.SUSPEND,
    pb.STATE_CHANGE_RESUME: Event.RESUME,
    pb.STATE_CHANGE_DELETE: Event.DELETE,
}
PRESENTED: Final = {
    pb.PRESENTED_KIND_PAYMENT_CODE: PayerKeyKind.PAYMENT_CODE,
    pb.PRESENTED_KIND_CONSUMER_CODE: PayerKeyKind.CONSUMER_CODE,
    pb.PRESENTED_KIND_TOKEN: PayerKeyKind.TOKEN,
    pb.PRESENTED_KIND_FACE: PayerKeyKind.FACE,
    pb.PRESENTED_KIND_TRANSIT: PayerKeyKind.TRANSIT,
}


def timestamp(time_us: int) -> Timestamp:
    """A moment in microseconds, as the wire has it."""
    return Timestamp(seconds=time_us // 1_000_000, nanos=time_us % 1_000_000 * 1_000)


def microseconds(message: object, field: str) -> int | None:
    """A timestamp field of a request in microseconds; None where it is unset."""
    if not message.HasField(field):  # type: ignore[attr-defined]
        return None
    stamp: Timestamp = getattr(message, field)
    return stamp.seconds * 1_000_000 + stamp.nanos // 1_000


def name_from(message: pb.TokenName) -> TokenName:
    """Which token a request speaks of. Raises HutongError(FIELD_MISSING)."""
    which = message.WhichOneof("name")
    if which == "token":
        return Secret(message.token)
    if which == "token_ref":
        return message.token_ref
    raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field="name")


def domain_from(message: pb.TokenDomain) -> Domain:
    """Reads a domain; the service checks it."""
    return Domain(
        frozenset(message.channels), frozenset(message.merchant_ids), frozenset(message.merchant_categories),
        message.amount_max_minor, message.currency, message.count_max, message.total_max_minor,
        message.cryptogram_required,
    )  # fmt: skip


def domain_message(domain: Domain) -> pb.TokenDomain:
    """Writes a domain; lists are sorted."""
    return pb.TokenDomain(
        channels=sorted(domain.channels), merchant_ids=sorted(domain.merchants),
        merchant_categories=sorted(domain.categories), amount_max_minor=domain.amount_max_minor,
        currency=domain.currency, count_max=domain.count_max, total_max_minor=domain.total_max_minor,
        cryptogram_required=domain.cryptogram_required,
    )  # fmt: skip


def budget_from(message: pb.TokenBudget) -> Budget:
    """Reads a budget; the service checks it."""
    return Budget(message.amount_minor, message.currency, message.period_days)


def _budget_message(policy: Policy) -> pb.TokenBudget | None:
    budget = policy.budget
    if budget is None:
        return None
    return pb.TokenBudget(amount_minor=budget.amount_minor, currency=budget.currency, period_days=budget.period_days)


def token_message(view: TokenView) -> pb.TokenView:
    """Writes a token's view."""
    return pb.TokenView(
        token_ref=view.token_ref, last_four=view.last_four, issuer_id=view.policy.issuer_id, par=view.par,
        state=pb.TokenState.ValueType(view.state), assurance_method=view.policy.assurance_method,
        domain=domain_message(view.policy.domain), budget=_budget_message(view.policy),
        requestor_ids=view.policy.requestors, create_time=timestamp(view.created_us),
        expire_time=timestamp(view.expires_us), erased=view.erased,
    )  # fmt: skip


def key_message(view: KeyView) -> pb.KeyView:
    """Writes a key's view."""
    return pb.KeyView(
        key_ref=view.key_ref, kind=pb.TokenKeyKind.ValueType(view.kind), state=pb.TokenState.ValueType(view.state),
        last_four=view.last_four, assurance_method=view.assurance_method, device_id=view.device_id,
        domain=domain_message(view.policy.domain), create_time=timestamp(view.created_us),
        expire_time=timestamp(view.expires_us),
    )  # fmt: skip


def event_message(event: HistoryEvent) -> pb.TokenEvent:
    """Writes a line of the history."""
    return pb.TokenEvent(
        sequence=event.sequence, time=timestamp(event.time_us), token_ref=event.token_ref, key_ref=event.key_ref,
        kind=event.kind, requestor_id=event.requestor, reason=event.reason,
    )  # fmt: skip


def use_from(message: pb.PresentedKey) -> KeyUse:
    """Reads a presented key. Raises HutongError(FIELD_INVALID)."""
    kind = PRESENTED.get(message.kind)
    if kind is None:
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="kind")
    proof = None
    if message.HasField("cryptogram"):
        sent = message.cryptogram
        proof = Cryptogram(sent.value, sent.counter, sent.unpredictable_number)
    return KeyUse(
        kind, Secret(message.value), message.amount_minor, message.currency, message.merchant_id, message.terminal_id,
        message.merchant_category, message.channel, message.requestor_id, message.device_id, proof,
        message.assurance_method,
    )  # fmt: skip


def result_message(answer: Resolution | HutongError) -> pb.ResolveResult:
    """Writes the answer to one presented key."""
    if isinstance(answer, HutongError):
        return pb.ResolveResult(error=answer.to_status())
    counters = [
        pb.CounterCondition(counter=item.counter, add=item.add, cap=item.cap, reason=item.reason)
        for item in answer.counters
    ]
    key = pb.ResolvedKey(
        issuer_id=answer.issuer_id, token=answer.token.reveal(), token_ref=answer.token_ref, key_ref=answer.key_ref,
        last_four=answer.last_four, assurance_method=answer.assurance_method, spends=answer.spends, counters=counters,
        amount_max_minor=answer.amount_max_minor or 0, spend_reason=answer.spend_reason,
        make_time=timestamp(answer.made_us) if answer.made_us else None,
        key_create_time=timestamp(answer.key_since_us) if answer.key_since_us else None,
    )  # fmt: skip
    return pb.ResolveResult(key=key)


def status_message(status: KeyStatus) -> pb.KeyStatus:
    """Writes the KEK's state."""
    versions = [
        pb.KeyVersion(
            version=item.version,
            state=item.state,
            create_time=timestamp(item.created_us),
            retire_time=timestamp(item.retired_us) if item.retired_us else None,
        )
        for item in status.versions
    ]
    return pb.KeyStatus(
        store=status.store, suite=status.suite, versions=versions, active_version=status.active,
        accounts=status.accounts, remaining=status.remaining, rotating=status.rotating,
    )  # fmt: skip
