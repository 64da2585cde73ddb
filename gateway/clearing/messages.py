"""Windows and positions as messages, and their pages (AIP-158). Pure."""

from __future__ import annotations

from gateway.clearing.model import Position, Window
from gateway.engine.answer import set_time
from hutong.gateway.v1 import settlement_pb2 as pb
from hutong_contract.errors import HutongError, Reason


def window(closed: Window) -> pb.SettlementWindow:
    """A closed window."""
    message = pb.SettlementWindow(
        number=closed.number,
        after_sequence=closed.after_sequence,
        last_sequence=closed.last_sequence,
        carried=[
            pb.CarriedPayments(currency=one.currency, payments=one.payments, amount_minor=one.amount_minor)
            for one in closed.carried
        ],
    )
    if closed.opened_us:
        set_time(message.open_time, closed.opened_us)
    set_time(message.close_time, closed.closed_us)
    return message


def position(one: Position) -> pb.SettlementPosition:
    """A position."""
    return pb.SettlementPosition(
        participant_id=one.participant,
        currency=one.currency,
        debit_count=one.debits.count,
        debit_minor=one.debits.amount_minor,
        credit_count=one.credits.count,
        credit_minor=one.credits.amount_minor,
        refund_paid_count=one.refunds_paid.count,
        refund_paid_minor=one.refunds_paid.amount_minor,
        refund_received_count=one.refunds_received.count,
        refund_received_minor=one.refunds_received.amount_minor,
        gross_minor=one.gross_minor,
        net_minor=one.net_minor,
    )


def page_start(token: str, first: int) -> int:
    """The start of a page, from the token of the previous one. Raises HutongError(FIELD_INVALID)."""
    if not token:
        return first
    if not (token.isascii() and token.isdigit() and len(token) <= 18):
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="page_token", allowed="next_page_token of an answer")
    return int(token)
