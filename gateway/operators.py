"""Authorisation of operators: settlement and risk rules are for them alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from hutong_contract.errors import HutongError, Reason
from hutong_contract.names import REQUESTOR_SECRET_METADATA

Operators = Callable[[str, str], None]
"""Raises HutongError unless a TRID and its secret may operate the gateway."""
Context = grpc.aio.ServicerContext[Any, Any]


def secret_from(context: Context, name: str) -> str:
    """The secret in a call's metadata; empty if there is none."""
    return str(dict(context.invocation_metadata() or ()).get(name, ""))


def admit_operator(trid: str, context: Context, operators: Operators, field: str = "requestor_id") -> None:
    """Admits an operator's call. Raises HutongError: FIELD_MISSING (naming this field) if nobody is named, and
    REQUESTOR_NOT_ALLOWED."""
    if not trid:
        raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field=field)
    operators(trid, secret_from(context, REQUESTOR_SECRET_METADATA))
