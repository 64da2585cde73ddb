"""Answers that come faster than the engine takes them: the stream waits, nothing is lost, nothing grows."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from gateway.directory import parse
from gateway.engine.inbox import Inbox
from gateway.engine.model import Answered
from gateway.links import remote
from gateway.links.remote import RemoteLink
from hutong.participant.v1 import participant_pb2 as pb
from hutong.participant.v1 import participant_pb2_grpc as rpc
from tests.deadlines import CALL_S

WAITING_MAX = 500
FRAMES, EACH = 60, 100
QUIET = 5
"""Looks at which nothing more has come: the stream waits."""


def test_a_participant_that_answers_too_fast_has_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "ANSWERS_WAITING_MAX", WAITING_MAX)
    assert asyncio.run(asyncio.wait_for(_flood(), CALL_S)) == FRAMES * EACH


async def _flood() -> int:
    inbox: Inbox[Answered] = Inbox()
    link = RemoteLink(
        parse({"participants": [{"id": "bank", "role": "issuer", "secret": "the bank's own secret"}], "merchants": []})
    )
    link.use(inbox)
    server = grpc.aio.server()
    rpc.add_ParticipantServiceServicer_to_server(link, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stream = rpc.ParticipantServiceStub(channel).Connect()
        await stream.write(pb.ConnectRequest(hello=pb.Hello(participant_id="bank", secret="the bank's own secret")))
        welcome = await stream.read()
        assert isinstance(welcome, pb.ConnectResponse)
        assert welcome.welcome.window > 0
        writing = asyncio.ensure_future(_write(stream))
        taken = quiet = before = 0
        while taken < FRAMES * EACH:
            assert len(inbox) <= WAITING_MAX + EACH
            quiet = quiet + 1 if len(inbox) == before else 0
            if quiet >= QUIET and (len(inbox) > WAITING_MAX or writing.done()):
                taken += len(inbox.take(WAITING_MAX))
            before = len(inbox)
            await asyncio.sleep(remote.READ_AGAIN_S)
        await writing
        stream.cancel()
    link.close()
    await server.stop(0)
    return taken


async def _write(stream: grpc.aio.StreamStreamCall[pb.ConnectRequest, pb.ConnectResponse]) -> None:
    for number in range(FRAMES):
        answers = [pb.Answer(leg_id=bytes([number]) + bytes(16), response_code="00") for _ in range(EACH)]
        await stream.write(pb.ConnectRequest(answers=pb.AnswerFrame(answers=answers)))
