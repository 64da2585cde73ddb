"""Who may ask what only an operator may: settlement, and the rules of risk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from hutong_contract.errors import HutongError, Reason
from hutong_contract.names import REQUESTOR_SECRET_METADATA

Operators = Callable[[str, str], None]
"""Raises HutongError unless a TRID and its secret may run the gateway."""
Context = grpc.aio.ServicerContext[Any, Any]


def secret_from(context: Context, name: str) -> str:
    """A secret that a caller sends in its metadata; empty where there is none."""
    return str(dict(context.invocation_metadata() or ()).get(name, ""))


def admit_operator(trid: str, context: Context, operators: Operators, field: str = "requestor_id") -> None:
    """Lets an operator's call pass. Raises HutongError: FIELD_MISSING, of this field, where nobody is named, and
    REQUESTOR_NOT_ALLOWED."""
    if not trid:
        raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field=field)
    operators(trid, secret_from(context, REQUESTOR_SECRET_METADATA))
