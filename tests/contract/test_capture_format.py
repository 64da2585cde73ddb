"""Proves that an embedding travels as little-endian float32, whatever holds its numbers."""

from __future__ import annotations

import numpy as np
import pytest

from hutong_contract.capture import embedding_bytes


def test_lists_and_arrays_give_the_same_bytes() -> None:
    numbers = np.random.default_rng(1).standard_normal(512)
    expected = numbers.astype("<f4").tobytes()
    assert embedding_bytes(numbers.tolist()) == expected
    assert embedding_bytes(numbers.astype(np.float32)) == expected
    assert embedding_bytes(numbers.astype(np.float32)[::-1][::-1]) == expected


def test_what_is_no_row_of_numbers_is_refused() -> None:
    with pytest.raises(TypeError):
        embedding_bytes(np.zeros((2, 512), np.float32))
