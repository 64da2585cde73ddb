"""Varints and framed fields are protobuf's; identifiers are those of RFC 9562; a bounded dictionary is bounded."""

from __future__ import annotations

import threading
import uuid

import pytest
from google.protobuf import wrappers_pb2
from hypothesis import given
from hypothesis import strategies as st

from hutong_contract.bounded import Bounded
from hutong_contract.identifiers import uuid7
from hutong_contract.wire import framed, read_varint, varint

EDGES = [0, 1, 0x7F, 0x80, 0x3FFF, 0x4000, 2**21 - 1, 2**21, 2**28, 2**35 - 1]


@pytest.mark.parametrize("value", EDGES)
def test_a_varint_is_protobufs(value: int) -> None:
    assert b"\x08" + varint(value) == (wrappers_pb2.UInt64Value(value=value).SerializeToString() or b"\x08\x00")
    assert read_varint(b"?" + varint(value) + b"!", 1) == (value, 1 + len(varint(value)))


@pytest.mark.parametrize("length", [0, 1, 0x7F, 0x80, 0x3FFF, 0x4000, 100_000])
def test_a_framed_field_is_read_by_protobuf(length: int) -> None:
    content = b"x" * length
    assert wrappers_pb2.BytesValue.FromString(framed(b"\x0a", content)).value == content


@given(st.binary(max_size=12), st.integers(0, 12))
def test_reading_any_bytes_ends_within_them_and_within_five(data: bytes, at: int) -> None:
    value, end = read_varint(data, at)
    assert at <= end <= max(at, min(len(data), at + 5))
    assert 0 <= value < 2**35


def test_an_identifier_says_its_version_and_time() -> None:
    made = uuid.UUID(bytes=uuid7(0x0123456789AB, 0xFFF, (1 << 62) - 1))
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == 0x0123456789AB
    assert uuid7(5, 1, 0) < uuid7(5, 2, 0) < uuid7(6, 0, 0)


def test_what_was_used_longest_ago_is_forgotten_first() -> None:
    kept: Bounded[str, int] = Bounded(2)
    kept.put("a", 1)
    kept.put("b", 2)
    assert (kept.get("a"), kept.peek("b")) == (1, 2)
    kept.put("c", 3)
    assert ("a" in kept, "b" in kept, "c" in kept, len(kept)) == (True, False, True, 2)
    kept.put("a", 4)
    kept.put("d", 5)
    assert (kept.get("a"), kept.get("c"), kept.pop("d"), kept.pop("d"), len(kept)) == (4, None, 5, None, 1)


def test_threads_that_share_one_break_nothing() -> None:
    kept: Bounded[int, int] = Bounded(8)
    failures: list[BaseException] = []

    def work(start: int) -> None:
        try:
            for number in range(20_000):
                kept.put((start + number) % 16, number)
                kept.get((start * 7 + number) % 16)
        except BaseException as error:  # noqa: BLE001 - whatever a thread dies of is the finding
            failures.append(error)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(kept) <= 8 + len(threads)
