"""Passing refusals: the same request may succeed a little later, so clients send it again."""

from __future__ import annotations

from typing import Final

import grpc

from hutong_contract.errors import HutongError, Reason

PASSING_CODES: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED})
"""Status codes of passing refusals."""
PASSING_REASONS: Final = frozenset({Reason.ERROR_REASON_OVERLOADED, Reason.ERROR_REASON_QUERY_BUDGET_SPENT})
"""Reasons with another status code that are passing too."""


def passes(error: HutongError) -> bool:
    """Whether the same request may succeed a little later."""
    return error.reason in PASSING_REASONS or error.status_code in PASSING_CODES
