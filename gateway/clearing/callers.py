"""Who may ask what of the settlement service."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc

from contract.errors import HutongError, Reason
from contract.serving import proven_identities
from gateway.directory import Directory
from hutong.gateway.v1 import settlement_pb2 as pb

OPERATOR_SECRET: Final = "hutong-requestor-secret"
PARTICIPANT_SECRET: Final = "hutong-participant-secret"

Operators = Callable[[str, str], None]
"""Raises HutongError unless a TRID and its secret may run settlement."""
Context = grpc.aio.ServicerContext[Any, Any]


def admit(asked: pb.SettlementCaller, context: Context, directory: Directory, operators: Operators) -> str:
    """The participant that asks; empty for an operator. Raises HutongError: FIELD_MISSING where nobody is named,
    FIELD_INVALID where both are, REQUESTOR_NOT_ALLOWED, PARTICIPANT_UNKNOWN, PARTICIPANT_REFUSED."""
    metadata: Mapping[str, Any] = dict(context.invocation_metadata() or ())
    if asked.requestor_id and asked.participant_id:
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="caller", allowed="requestor_id or participant_id")
    if asked.requestor_id:
        operators(asked.requestor_id, str(metadata.get(OPERATOR_SECRET, "")))
        return ""
    if not asked.participant_id:
        raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field="caller")
    participant = directory.participants.get(asked.participant_id)
    if participant is None:
        raise HutongError(Reason.ERROR_REASON_PARTICIPANT_UNKNOWN)
    secret = str(metadata.get(PARTICIPANT_SECRET, ""))
    knows = participant.secret and hmac.compare_digest(secret.encode(), participant.secret.encode())
    if not knows and participant.id not in proven_identities(context):
        raise HutongError(Reason.ERROR_REASON_PARTICIPANT_REFUSED)
    return participant.id


def check_operator(participant: str) -> None:
    """Raises HutongError(PARTICIPANT_REFUSED) for a participant."""
    if participant:
        raise HutongError(Reason.ERROR_REASON_PARTICIPANT_REFUSED, allowed="operators")


def check_own(participant: str, whose: str) -> None:
    """Raises HutongError(PARTICIPANT_REFUSED) where a participant asks for another's."""
    if participant and participant != whose:
        raise HutongError(Reason.ERROR_REASON_PARTICIPANT_REFUSED, allowed=participant)
