"""Page sizes of lists (AIP-158)."""

from __future__ import annotations

from hutong_contract.errors import HutongError, Reason


def page_size(asked: int, default: int, most: int) -> int:
    """The size of a page: `default` if none is requested, at most `most`. Raises HutongError(FIELD_INVALID) for a
    negative number."""
    if asked < 0:
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="page_size", least="0")
    return min(asked or default, most)
