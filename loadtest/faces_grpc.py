"""Identification over gRPC: a server process with everybody enrolled, and this process as many terminals."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import grpc
import uvloop

from facepay.gallery.engine import Vectors
from facepay.operators import Operators
from facepay.records import Consent, NewSubject
from facepay.server import FaceServicer
from facepay.service import FaceService, open_service
from hutong.facepay.v1 import face_pb2, face_pb2_grpc
from hutong_contract.capture import Captured, ServiceKey, TerminalKey, build_capture
from hutong_contract.secret import Secret
from loadtest import faces_population as population
from loadtest.progress import Begin

CALLS: Final = 6_000
IN_FLIGHT: Final = 96
"""Terminals waiting for an answer at once."""
ENROL_AT_ONCE: Final = 8_000
NONCES_AT_ONCE: Final = 64
STEP: Final = 100
"""Answers between two steps of the progress bar: showing each would cost this process, which shares the machine."""
CUES: Final = {"texture": 0.9, "frequency": 0.9, "motion": 0.9}


def measure(n: int, seed: int, folder: Path | None, say: Begin) -> float:
    """Identifications a second. Every call is a sealed, signed capture with a fresh nonce."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="hutong-face-") as name:
        command = [sys.executable, "-m", "loadtest.faces_grpc", str(n), str(seed), name]
        done = say(f"enrolling {n:,} in a service", n)
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
        assert server.stdout is not None
        target = ""
        for line in server.stdout:
            word, value = line.split()
            if word == "enrolled":
                done(int(value))
            else:
                target = value
                break
        try:
            if not target:
                raise RuntimeError("the face server did not start")
            finished = say("identifying over gRPC", CALLS)
            return uvloop.run(_drive(target, n, seed, finished))
        finally:
            server.communicate()
            server.wait()


async def _drive(target: str, n: int, seed: int, finished: Callable[[int], None]) -> float:
    people = population.people("clustered", seed)
    probes, _ = population.Asked(people, n, CALLS, seed, strangers=0.0).all()
    async with grpc.aio.insecure_channel(target) as channel:
        stub = face_pb2_grpc.FaceServiceStub(channel)
        key = TerminalKey.generate()
        await stub.RegisterTerminal(
            face_pb2.RegisterTerminalRequest(
                terminal_id="bench", merchant_id="bench", public_key=key.public_key, algorithm=key.algorithm
            )
        )
        captures = await _captures(stub, key, probes)
        waiting = iter(captures)
        answered = matched = 0

        async def terminal() -> None:
            nonlocal answered, matched
            for capture in waiting:
                answer = await stub.Identify(face_pb2.IdentifyRequest(capture=capture))
                matched += answer.outcome in (face_pb2.OUTCOME_MATCHED, face_pb2.OUTCOME_AMBIGUOUS)
                answered += 1
                if answered % STEP == 0:
                    finished(STEP)

        start = time.perf_counter()
        await asyncio.gather(*(terminal() for _ in range(IN_FLIGHT)))
        taken = time.perf_counter() - start
        if matched < CALLS * 0.98:
            raise RuntimeError(f"only {matched} of {CALLS} were identified")
        return round(CALLS / taken, 1)


async def _captures(
    stub: face_pb2_grpc.FaceServiceAsyncStub, key: TerminalKey, probes: Vectors
) -> list[face_pb2.FaceCapture]:
    out = []
    for start in range(0, len(probes), NONCES_AT_ONCE):
        some = probes[start : start + NONCES_AT_ONCE]
        begun = await stub.BeginCapture(face_pb2.BeginCaptureRequest(terminal_id="bench", count=len(some)))
        service = ServiceKey(begun.key_id, begun.public_key)
        for nonce, probe in zip(begun.nonces, some, strict=True):
            captured = Captured(probe, CUES)
            now = time.time_ns() // 1000
            out.append(
                build_capture(
                    captured,
                    key=key,
                    service=service,
                    nonce=nonce,
                    terminal_id="bench",
                    merchant_id="bench",
                    captured_at_us=now,
                )
            )
    return out


def enrol(service: FaceService, n: int, seed: int, step: Callable[[int], None]) -> None:
    """Moves n simulated people into a service, without passcodes: hashing 325,500 would take hours."""
    people = population.people("clustered", seed)
    now = time.time_ns() // 1000
    consent = Consent("bench", "1", now)
    for start in range(0, n, ENROL_AT_ONCE):
        vectors = people.enrolled(start, min(ENROL_AT_ONCE, n - start))
        service.enroll_many(
            [
                NewSubject(f"person {start + place}", vector[None], Secret(f"face_{start + place:032x}"), consent)
                for place, vector in enumerate(vectors)
            ],
            now,
        )
        step(len(vectors))
    service.maintain(now)


async def _serve(n: int, seed: int, folder: Path) -> None:
    service = open_service(folder)

    def step(done: int) -> None:
        os.write(1, b"enrolled %d\n" % done)

    enrol(service, n, seed, step)
    server = grpc.aio.server()
    servicer = FaceServicer(service, Operators(whoever_reaches=True))
    face_pb2_grpc.add_FaceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    os.write(1, b"target 127.0.0.1:%d\n" % port)
    # The parent closes our standard input when it has finished, or dies.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(1)
    servicer.close()
    service.close()


def main() -> None:
    """The server process."""
    n, seed, folder = sys.argv[1:]
    uvloop.run(_serve(int(n), int(seed), Path(folder)))


if __name__ == "__main__":
    main()
