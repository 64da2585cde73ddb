"""Real streams that break and are taken over while an engine's thread sends: all is settled, every place is free."""

from __future__ import annotations

import asyncio
import itertools
import time

import grpc

from gateway.directory import parse
from gateway.engine.inbox import Inbox
from gateway.engine.model import NOT_SENT, Answered, LegKind, LegOut
from gateway.links.remote import RemoteLink
from hutong.participant.v1 import participant_pb2 as pb
from hutong.participant.v1 import participant_pb2_grpc as rpc
from tests.deadlines import CALL_S

BANK = "bank"
WINDOW = 64
PAYMENTS = 5_000
AT_ONCE = 40
FRAMES_EACH = 3
"""Frames after which a stream breaks, or another one takes over, in turn."""


def debit(payment: int) -> LegOut:
    return LegOut(BANK, payment.to_bytes(16, "big") + b"\x01", LegKind.DEBIT, b"", 100, "CNY", "account", "")


def reversal(lost: bytes) -> LegOut:
    return LegOut(BANK, lost[:16] + b"\x02", LegKind.REVERSAL, lost, 100, "CNY", "", "")


class Sender:
    """An engine's thread: sends debits, and reversals for those that are not answered."""

    def __init__(self, link: RemoteLink, inbox: Inbox[Answered]) -> None:
        self.link = link
        self.inbox = inbox
        self.settled: dict[bytes, int] = {}
        self.open: set[bytes] = set()
        self.refused = 0

    def run(self) -> None:
        end = time.monotonic() + CALL_S
        payments = iter(range(PAYMENTS))
        while len(self.settled) < PAYMENTS:
            assert time.monotonic() < end, f"{len(self.open)} of {PAYMENTS} are open, {len(self.settled)} settled"
            room = AT_ONCE - len(self.open) if self.link.reachable(BANK) else 0
            legs = [debit(payment) for payment in itertools.islice(payments, room)]
            self.open.update(leg.leg_id for leg in legs)
            if not legs:  # whatever is left is undone, again and again
                legs = [reversal(leg_id) for leg_id in sorted(self.open)]
            self._hear(self.link.send(legs, 1))
            self._hear(self.link.poll(1))
            self.inbox.wait(0.02)
            self._hear(self.inbox.take(1_000_000))

    def _hear(self, answers: list[Answered]) -> None:
        for answer in answers:
            undoes = answer.leg_id[16] == 2
            if undoes and answer.result == NOT_SENT:
                self.refused += 1
                continue
            leg_id = answer.leg_id[:16] + b"\x01"
            if leg_id in self.open:
                self.open.discard(leg_id)
                self.settled[leg_id] = answer.result


async def _participate(channel: grpc.aio.Channel, over: asyncio.Event) -> int:
    """Dials again and again; every other stream is left open until the next one has taken over. Returns how many."""
    streams = 0
    former = None
    while not over.is_set():
        stream = rpc.ParticipantServiceStub(channel).Connect()
        streams += 1
        await stream.write(
            pb.ConnectRequest(hello=pb.Hello(participant_id=BANK, secret="the bank's own secret", installation="one"))
        )
        try:
            for _ in range(FRAMES_EACH):
                frame = await stream.read()
                if not isinstance(frame, pb.ConnectResponse):
                    break
                answers = [
                    pb.Answer(leg_id=leg.leg_id, result=pb.ANSWER_RESULT_APPROVED, response_code="00")
                    for leg in frame.legs.legs
                ]
                await stream.write(pb.ConnectRequest(answers=pb.AnswerFrame(answers=answers)))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass
        if former is not None:
            former.cancel()
            former = None
        if streams % 2:
            former = stream
        else:
            stream.cancel()
    return streams


async def _run() -> tuple[Sender, RemoteLink, int]:
    inbox: Inbox[Answered] = Inbox()
    book = parse({"participants": [{"id": BANK, "role": "issuer", "secret": "the bank's own secret"}], "merchants": []})
    link = RemoteLink(book, window=WINDOW)
    link.use(inbox)
    server = grpc.aio.server()
    rpc.add_ParticipantServiceServicer_to_server(link, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    over = asyncio.Event()
    sender = Sender(link, inbox)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        participating = asyncio.ensure_future(_participate(channel, over))
        await asyncio.to_thread(sender.run)
        over.set()
        link.close()  # ends the stream that is open, and with it the last read
        streams = await participating
    await server.stop(0)
    return sender, link, streams


def test_whatever_streams_do_all_is_settled_and_no_place_is_left_over() -> None:
    sender, link, streams = asyncio.run(asyncio.wait_for(_run(), 2 * CALL_S))
    assert len(sender.settled) == PAYMENTS
    assert streams > 20
    assert list(sender.settled.values()).count(pb.ANSWER_RESULT_APPROVED) > PAYMENTS // 4
    assert link.unanswered(BANK) == 0
