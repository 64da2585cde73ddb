"""Proves: a capture counts once, in time, where it was taken, as it was signed; all else is refused and uses up nothing
of an honest terminal's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from facepay.captures import NONCE_LIFE_US, Fault, Nonces
from facepay.decision import Outcome
from facepay.interface import FaceUse
from facepay.model import Asked, Options
from facepay.service import FaceService
from hutong.facepay.v1 import capture_pb2
from hutong_contract import capture as format_
from hutong_contract.capture import Captured, TerminalKey, build_capture
from hutong_contract.errors import HutongError
from hutong_contract.secret import Secret


def fault_of(desk: Any, sealed: bytes) -> Fault:
    decision = desk.service.identify(Asked(sealed), desk.now_us).decision
    assert decision.outcome is Outcome.BAD_CAPTURE
    return next(fault for fault in Fault if decision.detail.startswith(fault.value))


def reopened(desk: Any, sealed: bytes) -> capture_pb2.CaptureContents:
    """What only the service can do: look inside."""
    plain = format_.unseal(desk.service._keys.capture_key, sealed, format_.CAPTURE_PURPOSE)
    return capture_pb2.CaptureContents.FromString(plain)


def sealed_again(desk: Any, contents: capture_pb2.CaptureContents) -> bytes:
    return format_.seal(desk.service.service_key, contents.SerializeToString(), format_.CAPTURE_PURPOSE)


def test_replay_is_refused(desk: Any) -> None:
    desk.enroll(1)
    sealed = desk.capture(1)
    assert desk.service.identify(Asked(sealed), desk.now_us).decision.outcome is Outcome.MATCHED
    assert fault_of(desk, sealed) is Fault.NONCE
    assert fault_of(desk, sealed_again(desk, reopened(desk, sealed))) is Fault.NONCE


def test_stale_and_future_captures_are_refused(desk: Any) -> None:
    late = desk.capture(1)
    desk.now_us += NONCE_LIFE_US + 1
    assert fault_of(desk, late) is Fault.NONCE
    assert fault_of(desk, desk.capture(1, captured_at_us=desk.now_us - NONCE_LIFE_US - 1)) is Fault.STALE
    assert fault_of(desk, desk.capture(1, captured_at_us=desk.now_us + NONCE_LIFE_US)) is Fault.STALE


def test_a_restart_forgets_nonces_so_nothing_is_replayed_after_it(desk: Any) -> None:
    sealed = desk.capture(1)
    desk.reopen()
    assert fault_of(desk, sealed) is Fault.NONCE


def test_nonce_of_another_terminal_is_refused(desk: Any) -> None:
    other = TerminalKey.generate()
    desk.service.register_terminal("t2", "m1", other.algorithm, other.public_key)
    assert fault_of(desk, desk.capture(1, terminal_id="t2", key=other)) is Fault.NONCE


@pytest.mark.parametrize("part", ["embedding", "frames", "depth_map", "passcode", "last_four"])
def test_splicing_any_part_is_refused(desk: Any, part: str) -> None:
    frames = {
        "frames": (b"one", b"two"),
        "depth_map": b"deep",
        "passcode": Secret("314159"),
        "last_four": Secret("0001"),
    }
    contents = reopened(desk, desk.capture(1, **frames))
    if part == "embedding":
        contents.embedding = format_.embedding_bytes(desk.probe(2))
    elif part == "frames":
        contents.frames[0] = b"three"
    else:
        setattr(contents, part, b"x" if part == "depth_map" else "9999")
    assert fault_of(desk, sealed_again(desk, contents)) is Fault.SPLICED


def test_moving_a_frame_boundary_is_refused(desk: Any) -> None:
    contents = reopened(desk, desk.capture(1, frames=(b"ab", b"c")))
    contents.frames[:] = [b"a", b"bc"]
    assert fault_of(desk, sealed_again(desk, contents)) is Fault.SPLICED


def test_a_statement_changed_after_signing_is_refused_and_keeps_the_nonce(desk: Any) -> None:
    desk.enroll(1)
    honest = desk.capture(1)
    contents = reopened(desk, honest)
    statement = capture_pb2.CaptureStatement.FromString(contents.statement)
    statement.liveness[0].score = 1.0
    contents.statement = statement.SerializeToString()
    assert fault_of(desk, sealed_again(desk, contents)) is Fault.SIGNATURE
    assert desk.service.identify(Asked(honest), desk.now_us).decision.outcome is Outcome.MATCHED


def test_unknown_terminals_and_wrong_keys_are_refused(desk: Any) -> None:
    assert fault_of(desk, desk.capture(1, terminal_id="t9")) is Fault.TERMINAL
    assert fault_of(desk, desk.capture(1, key=TerminalKey.generate())) is Fault.SIGNATURE
    with pytest.raises(HutongError, match="CAPTURE_INVALID"):
        desk.service.begin_capture("t9", 1, desk.now_us)


def test_an_injected_embedding_without_the_terminals_key_is_refused(desk: Any) -> None:
    """The attacker has a template and the service's public key, but no terminal."""
    desk.enroll(1)
    stolen = desk.people.enrolled(1, 1)[0]
    assert fault_of(desk, desk.capture(1, embedding=stolen, key=TerminalKey.generate())) is Fault.SIGNATURE


@pytest.mark.parametrize("length", [0, 1, 40, 60, 200])
def test_garbage_is_refused(desk: Any, length: int) -> None:
    assert fault_of(desk, bytes(length)) is Fault.SEAL
    sealed = desk.capture(1)
    assert fault_of(desk, sealed[:length]) is Fault.SEAL


def test_every_flipped_byte_is_refused(desk: Any) -> None:
    sealed = desk.capture(1)
    for place in range(0, len(sealed), 97):
        assert fault_of(desk, sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]) is Fault.SEAL


def test_contents_that_are_no_message_are_refused(desk: Any) -> None:
    sealed = format_.seal(desk.service.service_key, b"\xff\xff\xff", format_.CAPTURE_PURPOSE)
    assert fault_of(desk, sealed) is Fault.CONTENTS


def test_a_capture_cannot_be_used_as_an_enrolment(desk: Any) -> None:
    with pytest.raises(format_.SealError):
        format_.unseal(desk.service._keys.capture_key, desk.capture(1), format_.ENROLMENT_PURPOSE)


@pytest.mark.parametrize(
    "vector", [np.zeros(512), np.full(512, np.nan), np.ones(100), np.array([])], ids=["zero", "nan", "short", "empty"]
)
def test_unusable_embeddings_are_refused(desk: Any, vector: Any) -> None:
    assert fault_of(desk, desk.capture(1, embedding=vector)) is Fault.EMBEDDING


@pytest.mark.parametrize(
    "use",
    [
        FaceUse(b"", 1_000, "CNY", "m2", "t1"),
        FaceUse(b"", 1_000, "CNY", "m1", "t2"),
        FaceUse(b"", 1_001, "CNY", "m1", "t1"),
        FaceUse(b"", 1_000, "USD", "m1", "t1"),
    ],
    ids=["merchant", "terminal", "amount", "currency"],
)
def test_a_capture_pays_only_what_and_where_it_was_taken_for(desk: Any, use: FaceUse) -> None:
    desk.enroll(1)
    sealed = desk.capture(1, amount_minor=1_000, currency="CNY")
    moved = FaceUse(sealed, use.amount_minor, use.currency, use.merchant_id, use.terminal_id)
    answer = desk.service.resolve([moved], desk.now_us)[0]
    assert isinstance(answer, HutongError)
    assert answer.name == "CAPTURE_INVALID"


@pytest.mark.parametrize("algorithm", [1, 2], ids=["ed25519", "p256"])
def test_both_signature_algorithms(desk: Any, algorithm: Any) -> None:
    desk.enroll(1)
    key = TerminalKey.generate(algorithm)
    desk.service.register_terminal("t1", "m1", key.algorithm, key.public_key)
    answer = desk.service.identify(Asked(desk.capture(1, key=key)), desk.now_us)
    assert answer.decision.outcome is Outcome.MATCHED


def test_public_keys_that_are_none_are_refused(desk: Any) -> None:
    for algorithm, key in ((1, b"short"), (2, b"\x04" + bytes(64)), (0, bytes(32)), (7, bytes(32))):
        with pytest.raises(HutongError, match="FIELD_INVALID"):
            desk.service.register_terminal("t5", "m1", algorithm, key)


def test_nothing_secret_shows_in_reprs_and_errors(desk: Any) -> None:
    desk.enroll(1)
    sealed = desk.capture(1, passcode=Secret("271828"), last_four=Secret("0001"))
    answer = desk.service.identify(Asked(sealed), desk.now_us)
    text = repr(answer) + repr(Asked(sealed)) + repr(answer.subject)
    assert "271828" not in text
    assert answer.subject.reference.reveal() not in text
    assert "array(" not in text
    captured = Captured([0.125], {}, passcode=Secret("271828"))
    assert "271828" not in repr(captured)


def test_many_nonces_are_bounded(desk: Any) -> None:
    nonces = Nonces(most=100)
    (first,), _ = nonces.give("t1", 1, 0)
    latest, challenge = nonces.give("t1", 64, 0)
    nonces.give("t1", 64, 0)
    assert nonces.take(first, "t1", 0) is None
    assert nonces.take(latest[-1], "t1", 0) == challenge
    with pytest.raises(HutongError, match="FIELD_INVALID"):
        desk.service.begin_capture("t1", 65, desk.now_us)


def test_sealing_needs_the_services_key(desk: Any, tmp_path: Any) -> None:
    other = FaceService(tmp_path / "other", 512, Options(), None)
    session = desk.service.begin_capture("t1", 1, desk.now_us)
    sealed = build_capture(
        Captured(desk.probe(1), {}),
        key=desk.key,
        service=other.service_key,
        nonce=session.nonces[0],
        terminal_id="t1",
        merchant_id="m1",
        captured_at_us=desk.now_us,
    ).sealed
    assert fault_of(desk, sealed) is Fault.SEAL
    other.close()
