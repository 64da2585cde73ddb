"""Proves: only the operator enrols, erases and registers terminals; nobody else does, and nobody by default."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from click.testing import CliRunner

from command.face import face
from command.options.faces import SECRET_VARIABLE
from facepay.operators import Operators
from hutong.facepay.v1 import face_pb2, face_pb2_grpc
from hutong_contract.errors import HutongError, from_rpc_error
from hutong_contract.secret import Secret
from sandbox.faces.capturing import FaceTerminal, Factors
from tests.facepay.serving import serving

SECRET = "correct horse battery"
NAMED = Operators(identities=frozenset({"desk"}))
SECRETED = Operators(secret=Secret(SECRET))
BOTH = Operators(frozenset({"desk"}), Secret(SECRET), whoever_reaches=True)
LOCAL = Operators(whoever_reaches=True)


@pytest.mark.parametrize(
    ("operators", "proven", "secret", "allowed"),
    [
        (Operators(), set(), "", False),
        (Operators(), {"desk"}, SECRET, False),
        (LOCAL, set(), "", True),
        (NAMED, {"desk"}, "", True),
        (NAMED, {"gateway", "desk"}, "", True),
        (NAMED, {"shop"}, "", False),
        (NAMED, set(), SECRET, False),
        (SECRETED, set(), SECRET, True),
        (SECRETED, set(), SECRET + " ", False),
        (SECRETED, {"desk"}, "", False),
        (BOTH, {"desk"}, "wrong", True),
        (BOTH, {"shop"}, SECRET, True),
        (BOTH, set(), "", False),
    ],
)
def test_who_is_an_operator(operators: Operators, proven: set[str], secret: str, allowed: bool) -> None:
    if allowed:
        operators.check(frozenset(proven), secret)
        return
    with pytest.raises(HutongError, match="FACE_OPERATOR_ONLY"):
        operators.check(frozenset(proven), secret)


def test_a_secret_that_can_be_guessed_is_refused_and_none_is_shown() -> None:
    with pytest.raises(ValueError, match="16 characters"):
        Operators(secret=Secret("short"))
    assert SECRET not in repr(SECRETED)


def refusal(call: Any, request: Any, metadata: Any = ()) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    error = from_rpc_error(caught.value)
    assert error is not None
    return error.name


def test_operator_calls_need_the_secret_and_other_calls_do_not(desk: Any) -> None:
    with serving(desk.service, SECRETED) as target, grpc.insecure_channel(target) as channel:
        stub = face_pb2_grpc.FaceServiceStub(channel)
        wrong = (("hutong-operator-secret", "correct horse"),)
        requests = (
            (stub.RegisterTerminal, face_pb2.RegisterTerminalRequest(terminal_id="t9", merchant_id="m9")),
            (stub.Enroll, face_pb2.EnrollRequest(subject="x")),
            (stub.RenewGallery, face_pb2.RenewGalleryRequest()),
            (stub.DeleteSubject, face_pb2.DeleteSubjectRequest(subject="anna")),
        )
        terminal = FaceTerminal(stub, desk.people, "t2", "m2", operator=Secret(SECRET))
        terminal.register()
        reference = terminal.enroll_person(5, "anna", Factors(Secret("271828")))
        for call, request in requests:
            assert refusal(call, request) == "FACE_OPERATOR_ONLY"
            assert refusal(call, request, wrong) == "FACE_OPERATOR_ONLY"
        other = FaceTerminal(stub, desk.people, "t2", "m2", terminal.key)
        answer = stub.Identify(face_pb2.IdentifyRequest(capture=other.capture(5)))
        assert (answer.outcome, answer.reference) == (face_pb2.OUTCOME_MATCHED, reference.reveal())
        assert stub.GetStatus(face_pb2.GetStatusRequest()).persons == 1


def test_commands_take_the_secret_from_the_environment(desk: Any) -> None:
    with serving(desk.service, SECRETED) as target:
        enroll = ["enroll", "anna", "--person", "5", "--passcode", "271828", "--target", target, "--json"]
        refused = CliRunner().invoke(face, enroll, env={SECRET_VARIABLE: ""})
        assert refused.exit_code == 1
        assert json.loads(refused.stdout)["error"]["reason"] == "FACE_OPERATOR_ONLY"
        done = CliRunner().invoke(face, enroll, env={SECRET_VARIABLE: SECRET})
        assert done.exit_code == 0, done.output
        renewed = CliRunner().invoke(face, ["renew", "--target", target, "--json"], env={SECRET_VARIABLE: SECRET})
        assert json.loads(renewed.stdout) == {"epoch": 2}
        found = CliRunner().invoke(face, ["identify", "--person", "5", *enroll[-3:]], env={SECRET_VARIABLE: SECRET})
        assert json.loads(found.stdout)["outcome"] == "matched"
        delete = ["delete", "anna", "--target", target]
        assert CliRunner().invoke(face, delete, env={SECRET_VARIABLE: ""}).exit_code == 1
        assert CliRunner().invoke(face, delete, env={SECRET_VARIABLE: SECRET}).exit_code == 0
