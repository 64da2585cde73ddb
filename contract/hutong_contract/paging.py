"""Pages of lists, as AIP-158 has them: how many items a page has."""

from __future__ import annotations

from hutong_contract.errors import HutongError, Reason


def page_size(asked: int, default: int, most: int) -> int:
    """How many items to answer with: `default` where nothing is asked for, `most` where more than that is.

    Raises HutongError(FIELD_INVALID) for a negative number.
    """
    if asked < 0:
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="page_size", least="0")
    return min(asked or default, most)
