"""Authorisation of callers of the settlement service."""

from __future__ import annotations

import hmac

from gateway.directory import Directory
from gateway.operators import Context, Operators, admit_operator, secret_from
from hutong.gateway.v1 import settlement_pb2 as pb
from hutong_contract.errors import HutongError, Reason
from hutong_contract.names import PARTICIPANT_SECRET_METADATA
from hutong_contract.serving import proves


def admit(asked: pb.SettlementCaller, context: Context, directory: Directory, operators: Operators) -> str:
    """The participant that calls; empty for an operator. Raises HutongError: FIELD_MISSING if nobody is named,
    FIELD_INVALID if both are, REQUESTOR_NOT_ALLOWED, PARTICIPANT_UNKNOWN, PARTICIPANT_REFUSED."""
    if asked.requestor_id and asked.participant_id:
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="caller", allowed="requestor_id or participant_id")
    if not asked.participant_id:
        admit_operator(asked.requestor_id, context, operators, field="caller")
        return ""
    participant = directory.participants.get(asked.participant_id)
    if participant is None:
        raise HutongError(Reason.ERROR_REASON_PARTICIPANT_UNKNOWN)
    secret = secret_from(context, PARTICIPANT_SECRET_METADATA)
    knows = participant.secret and hmac.compare_digest(secret.encode(), participant.secret.encode())
    if not knows and not proves(context, participant.id, directory.participants):
        raise HutongError(Reason.ERROR_REASON_PARTICIPANT_REFUSED)
    return participant.id


def check_operator(participant: str) -> None:
    """Raises HutongError(PARTICIPANT_REFUSED) for a participant."""
    if participant:
        raise HutongError(Reason.ERROR_REASON_PARTICIPANT_REFUSED, allowed="operators")


def check_own(participant: str, whose: str) -> None:
    """Raises HutongError(PARTICIPANT_REFUSED) if a participant asks for another's data."""
    if participant and participant != whose:
        raise HutongError(Reason.ERROR_REASON_PARTICIPANT_REFUSED, allowed=participant)
