"""Proves: no caller's deadline pays for loading or compiling the search kernels; whoever is refused meanwhile had
nothing done; kernels are compiled once for a machine, all of them, and kept where other checkouts find them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from facepay.decision import Outcome
from facepay.enrolment import How
from facepay.gallery import gallery as gallery_module
from facepay.gallery import kernel_cache, kernels, opening
from facepay.gallery.engine import Batch, Enrolled, GalleryUnavailable
from facepay.gallery.gallery import Gallery
from facepay.gallery.int8 import QUERIES_MIN
from facepay.gallery.sketch import Projection
from facepay.model import Options
from facepay.operators import Operators
from facepay.records import Consent
from facepay.service import open_service
from hutong.facepay.v1 import face_pb2, face_pb2_grpc
from hutong_contract.errors import HutongError, from_rpc_error
from hutong_contract.secret import Secret
from sandbox.faces.capturing import FaceTerminal, Factors
from sandbox.faces.people import People
from sandbox.faces.readiness import when_ready
from tests.deadlines import CALL_S, START_S
from tests.facepay.conftest import CHEAP, Desk
from tests.facepay.serving import serving

FACTORS = Factors(Secret("271828"), Secret("1234"))
SHORT = How(ready_within_s=0.05)


class Slow:
    """Opens the local gallery once it may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may = threading.Event()
        self.asked = 0
        really = opening._open_local

        def open_local(*arguments: Any) -> Any:
            self.asked += 1
            assert self.may.wait(START_S)
            return really(*arguments)

        monkeypatch.setattr(opening, "_open_local", open_local)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    made = Slow(monkeypatch)
    yield made
    made.may.set()


def enrolled(desk: Desk, how: How) -> Any:
    vectors = list(desk.people.enrolled(1, 1))
    consent = Consent("p", "1", desk.now_us)
    return desk.service.enroll("one", vectors, Secret("314159"), "", consent, how=how, now_us=desk.now_us)


def test_the_first_enrolment_is_refused_while_the_search_is_loaded_and_nothing_is_done(slow: Slow, desk: Desk) -> None:
    for _ in range(3):
        with pytest.raises(HutongError) as caught:
            enrolled(desk, SHORT)
        assert caught.value.name == "FACE_NOT_READY"
        assert caught.value.retry_us >= 1_000_000
    assert desk.service.status().persons == 0
    assert desk.service.status().ready_in_s > 0
    assert desk.identify(1).decision.outcome is Outcome.NO_MATCH, "nobody is enrolled, which needs no kernels"
    slow.may.set()
    assert when_ready(lambda: enrolled(desk, SHORT)).repeated is False
    assert desk.service.status().ready_in_s == 0
    assert slow.asked == 1
    assert desk.identify(1).decision.outcome is Outcome.MATCHED


def test_a_restart_on_a_machine_without_kernels_serves_and_refuses_faces_until_they_are_there(
    desk: Desk, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow.may.set()
    desk.enroll(1)
    slow.may.clear()
    monkeypatch.setattr(kernel_cache, "is_warm", lambda: False)
    monkeypatch.setattr(kernel_cache, "folder", lambda: None)
    desk.reopen(Options(passcode_cost=CHEAP.passcode_cost, wait_for_kernels=False))
    sealed = desk.capture(1)
    from facepay.model import Asked

    for call in (
        lambda: desk.service.identify(Asked(sealed), desk.now_us),
        lambda: desk.service.verify("person 1", desk.capture(1), desk.now_us),
        lambda: enrolled(desk, SHORT),
        lambda: desk.service.delete("person 1", desk.now_us),
    ):
        with pytest.raises(HutongError, match="FACE_NOT_READY"):
            call()
    assert desk.service.status().persons == 1
    slow.may.set()
    found = when_ready(lambda: desk.service.identify(Asked(sealed), desk.now_us))
    assert found.decision.outcome is Outcome.MATCHED, "the capture's nonce was not spent by the refusal"


def test_a_gallery_that_cannot_be_opened_says_so_and_is_tried_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(gallery_module, "warm_up", lambda _: (_ for _ in ()).throw(OSError("the disk is gone")))
        with pytest.raises(HutongError, match="FACE_UNAVAILABLE"):
            enrolled(desk, How())
    assert desk.service.status().persons == 0
    with contextlib.suppress(HutongError):
        enrolled(desk, How())  # Told of the failure before; it is opened meanwhile.
    enrolled(desk, How())
    assert desk.identify(1).decision.outcome is Outcome.MATCHED


def test_a_damaged_start_raises(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.enroll(1)
    desk.service.close()
    with monkeypatch.context() as broken:
        broken.setattr(gallery_module, "warm_up", lambda _: (_ for _ in ()).throw(OSError("the disk is gone")))
        with pytest.raises(GalleryUnavailable, match="disk is gone"):
            open_service(desk.folder, options=CHEAP)
    desk.service = open_service(desk.folder, options=CHEAP)


def test_closing_while_the_gallery_is_opened_ends(slow: Slow, tmp_path: Path) -> None:
    service = open_service(tmp_path, options=CHEAP)
    desk = Desk(service, People(11), None, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(HutongError, match="FACE_NOT_READY"):
        enrolled(desk, SHORT)
    closing = threading.Thread(target=service.close)
    closing.start()
    slow.may.set()
    closing.join(START_S)
    assert not closing.is_alive()


def test_a_terminal_waits_for_the_search_and_whoever_gave_up_left_nothing_behind(slow: Slow, tmp_path: Path) -> None:
    service = open_service(tmp_path, options=CHEAP)
    with serving(service, Operators(whoever_reaches=True)) as target, grpc.insecure_channel(target) as channel:
        stub = face_pb2_grpc.FaceServiceStub(channel)
        terminal = FaceTerminal(stub, People(7, 512), "t1", "m1")
        terminal.register()
        request = face_pb2.EnrollRequest(
            subject="x", sealed=b"", consent=face_pb2.Consent(purpose="p", given_at_us=time.time_ns() // 1000)
        )
        with pytest.raises(grpc.RpcError) as junk:
            stub.Enroll(request, timeout=CALL_S)
        found = from_rpc_error(junk.value)
        assert found is not None
        assert found.fields == {"field": "sealed"}, "what can be said at once is"
        told: list[float] = []

        def waiting(left_s: float) -> None:
            told.append(left_s)
            assert stub.GetStatus(face_pb2.GetStatusRequest(), timeout=CALL_S).ready_in_us > 0
            slow.may.set()

        people = list(People(7, 512).enrolled(10, 1))
        first = terminal.enroll("ten", people, Secret("271828"), waiting=waiting)
        assert told
        again = terminal.enroll("ten", people, Secret("271828"))
        assert (again.reference, again.repeated, first.repeated) == (first.reference, True, False)
        status = stub.GetStatus(face_pb2.GetStatusRequest(), timeout=CALL_S)
        assert (status.persons, status.ready_in_us) == (1, 0)
    service.close()


def test_an_enrolment_in_hand_is_not_done_once_its_caller_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = open_service(tmp_path, options=CHEAP)
    may, hashing, done = threading.Event(), threading.Event(), threading.Event()
    really_hash, really = service._passcodes.hash, service.enroll_sealed

    def hash_slowly(passcode: Secret[str]) -> str:
        hashing.set()
        assert may.wait(START_S)
        return really_hash(passcode)

    def enroll_sealed(*arguments: Any, **more: Any) -> Any:
        try:
            return really(*arguments, **more)
        finally:
            done.set()

    with serving(service, Operators(whoever_reaches=True)) as target, grpc.insecure_channel(target) as channel:
        stub = face_pb2_grpc.FaceServiceStub(channel)
        people = People(7, 512)
        terminal = FaceTerminal(stub, people, "t1", "m1")
        terminal.register()
        begun = stub.BeginCapture(face_pb2.BeginCaptureRequest(terminal_id="t1"), timeout=CALL_S)
        from hutong_contract.capture import ServiceKey, build_enrolment

        key = ServiceKey(begun.key_id, begun.public_key)
        request = face_pb2.EnrollRequest(
            subject="ten",
            sealed=build_enrolment(key, list(people.enrolled(10, 1)), Secret("271828"), None),
            consent=face_pb2.Consent(purpose="p", given_at_us=time.time_ns() // 1000),
        )
        terminal.enroll("nine", list(people.enrolled(9, 1)), Secret("271828"))  # Loads the search.
        monkeypatch.setattr(service._passcodes, "hash", hash_slowly)
        monkeypatch.setattr(service, "enroll_sealed", enroll_sealed)
        call = stub.Enroll.future(request, timeout=START_S)
        assert hashing.wait(CALL_S), call.exception() if call.done() else "not asked"
        call.cancel()
        # The server has heard of it once it answers what came after it on the same connection.
        for _ in range(3):
            stub.GetStatus(face_pb2.GetStatusRequest(), timeout=CALL_S)
        may.set()
        assert done.wait(START_S)
        assert service.status().persons == 1
        answer = stub.Enroll(request, timeout=START_S)
        assert (answer.repeated, service.status().persons) == (False, 2)
    service.close()


def kernels_of_the_module() -> dict[str, Any]:
    return {name: one for name, one in vars(kernels).items() if hasattr(one, "signatures")}


@pytest.mark.process
@pytest.mark.slow
def test_warming_up_compiles_every_form_of_every_kernel(tmp_path: Path) -> None:
    """What is compiled later is compiled inside somebody's deadline. In a process of its own: this one is warm."""
    done = subprocess.run([sys.executable, "-c", _FORMS, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


_FORMS = """
import sys
from pathlib import Path
from tests.facepay.test_readiness import every_form
every_form(Path(sys.argv[1]))
"""


def every_form(folder: Path) -> None:
    """Warms up, then does all that a gallery can do, and compares what was compiled."""
    projection = Projection(Secret(b"f" * 32), 512)
    gallery_module.warm_up(projection)
    before = {name: set(one.signatures) for name, one in kernels_of_the_module().items()}
    random = np.random.default_rng(1)

    def rows(first: int, count: int) -> Enrolled:
        vectors = random.standard_normal((count, 512)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        ids = np.arange(first, first + count, dtype=np.int64)
        return Enrolled(ids, ids, (ids % 3).astype(np.uint32), vectors)

    one = rows(1, 300)
    gallery = Gallery(folder / "gallery", projection, threads=2)
    gallery.use_products(wanted=True)
    gallery.load(iter([one]), 300)
    gallery.add(rows(301, 50))
    gallery.seal()
    gallery.add(rows(351, 50))
    gallery.remove([5, 340, 360])
    for count in (1, QUERIES_MIN + 1):
        for regions in (None, np.ones(count, np.uint32)):
            strangers = Batch(rows(1, count).vectors, np.full(count, 0.2, np.float32), regions)
            gallery.search(strangers)
            gallery.search(Batch(one.vectors[:count], np.full(count, 0.5, np.float32), regions))
            gallery.search_among(strangers, [1, 7, 360])
    gallery.close()
    after = {name: set(one.signatures) for name, one in kernels_of_the_module().items()}
    late = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert not late, f"compiled after the warm-up: {late}"


@pytest.mark.process
@pytest.mark.slow
def test_kernels_are_compiled_apart_once_and_found_by_other_processes(tmp_path: Path) -> None:
    environment = os.environ | {"HUTONG_CACHE": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)}

    def run(code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, timeout=START_S
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    service = (
        "import logging, sys, tempfile, pathlib, time\n"
        "logging.basicConfig(level=logging.INFO, stream=sys.stdout, format='%(message)s')\n"
        "from facepay.gallery import kernel_cache\n"
        "from facepay.service import open_service\n"
        "print(kernel_cache.is_warm(), flush=True)\n"
        "service = open_service(pathlib.Path(tempfile.mkdtemp()))\n"
        "print('numba' in sys.modules, service.status().ready_in_s > 0, flush=True)\n"
        "if service._gallery._compilation: assert service._gallery._compilation.wait(300)\n"
        "print(service.status().ready_in_s > 0, flush=True)\n"
        "service.close()\n"
    )
    first = run(service).splitlines()
    assert first[0] == "False"
    assert first[1].startswith("compiling face search kernels, once")
    assert first[2] == "False True", "the network's own process compiles nothing"
    assert first[3].startswith("face search kernels are compiled")
    assert run(service).splitlines() == ["True", "False False", "False"]
    hits = (
        "from hutong_contract.secret import Secret\n"
        "from facepay.gallery import kernels\n"
        "from facepay.gallery.gallery import warm_up\n"
        "from facepay.gallery.sketch import Projection\n"
        "warm_up(Projection(Secret(b'x'), 512))\n"
        "all = [one for one in vars(kernels).values() if hasattr(one, 'stats')]\n"
        "for what in ('cache_hits', 'cache_misses'):\n"
        "    print(sum(sum(getattr(one.stats, what).values()) for one in all))\n"
    )
    found, missed = map(int, run(hits).split())
    assert found > 5
    assert missed == 0


def test_the_cache_follows_every_source_and_never_another_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUTONG_CACHE", str(tmp_path))
    folder = kernel_cache.folder()
    assert folder is not None
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o077 == 0
    assert not kernel_cache.is_warm()
    kernel_cache.mark_warm()
    assert kernel_cache.is_warm()
    monkeypatch.setattr(kernel_cache, "_sources", lambda: "another")
    assert not kernel_cache.is_warm()
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    assert kernel_cache.folder() is None
    monkeypatch.setenv("HUTONG_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    assert kernel_cache.folder() is None
