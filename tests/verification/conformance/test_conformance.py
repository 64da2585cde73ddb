"""The conformance suite for participants: sound ones pass all of it, and each planted fault is named by its check."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from gateway.listen import Tls, parse
from hutong.participant.v1 import participant_pb2 as pb
from hutong_client.options import ClientOptions, TlsOptions
from hutong_client.wire import open_channel
from hutong_contract.legs import Answer, Leg
from hutong_contract.secret import Secret
from sandbox.participants.books import Books
from sandbox.participants.ledger import Role
from sandbox.participants.process import Desk, Runner
from sandbox.participants.script import Script
from sandbox.participants.simulated import Answers, SimulatedAcquirer, SimulatedIssuer, SimulatedParticipant
from tests.certificates import issue
from tests.deadlines import CALL_S, START_S
from verification.conformance.peer import Peer
from verification.conformance.report import Report, Verdict
from verification.conformance.run import checks_of, conform
from verification.conformance.session import Subject
from verification.conformance.started import Started

ROOT = Path(__file__).parents[3]
TOKEN, MERCHANT = "6212345678901234", "m1"
OPENING_MINOR = 54_321
SECRET = "of the directory"
SILENCE_S = 0.5
"""How long faulty participants are waited for."""

OK, NO = int(pb.ANSWER_RESULT_APPROVED), int(pb.ANSWER_RESULT_DECLINED)
DEBIT, CREDIT, REVERSAL = int(pb.LEG_KIND_DEBIT), int(pb.LEG_KIND_CREDIT), int(pb.LEG_KIND_REVERSAL)
REFUND, INQUIRY = int(pb.LEG_KIND_REFUND), int(pb.LEG_KIND_INQUIRY)
AUTHORISATION, CAPTURE = int(pb.LEG_KIND_AUTHORISATION), int(pb.LEG_KIND_CAPTURE)


def open_participant(folder: Path, role: Role) -> SimulatedParticipant:
    books = Books(folder)
    participant = (SimulatedIssuer if role is Role.ISSUER else SimulatedAcquirer)("p", books, magic_amounts=False)
    accounts = [(TOKEN, "CNY", OPENING_MINOR)] if role is Role.ISSUER else [(MERCHANT, "CNY", 0)]
    participant.ledger.open_accounts(accounts)
    return participant


@contextmanager
def running(desk: Desk, target: str, secret: str = SECRET, tls: TlsOptions | None = None) -> Iterator[None]:
    """A participant that stays connected."""
    with open_channel(target, ClientOptions(tls=tls)) as channel:
        runner = Runner(desk, channel, Secret(secret))
        thread = threading.Thread(target=runner.run, daemon=True)
        thread.start()
        yield
        runner.stop()
        thread.join(CALL_S)
        assert not thread.is_alive()


def subject(role: Role, *, answer_s: float = CALL_S, restart: Callable[[], None] | None = None) -> Subject:
    account = TOKEN if role is Role.ISSUER else MERCHANT
    return Subject("p", role, account, answer_s=answer_s, connect_s=CALL_S, restart=restart)


def examine(desk: Desk, role: Role, *only: str, answer_s: float = CALL_S) -> Report:
    with Peer(parse("127.0.0.1:0"), "p", Secret(SECRET)) as peer, running(desk, peer.target):
        return conform(subject(role, answer_s=answer_s), peer, only=frozenset(only))


def failed(report: Report) -> dict[str, str]:
    return {one.name: "; ".join(one.findings) for one in report.failed}


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.name.lower())
def test_the_sandboxs_participants_conform(tmp_path: Path, role: Role) -> None:
    participant = open_participant(tmp_path, role)
    report = examine(Desk(participant), role)
    assert failed(report) == {}
    skipped = [one.name for one in report.outcomes if one.verdict is Verdict.SKIPPED]
    assert skipped == ["restart"]
    assert report.legs > 500
    account, opening = (TOKEN, OPENING_MINOR) if role is Role.ISSUER else (MERCHANT, 0)
    assert participant.ledger.balance_minor(account, "CNY") == opening, "the account is as it was"


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.name.lower())
@pytest.mark.parametrize("kind", ["sandbox", "example"])
def test_participants_that_are_processes_conform_also_when_they_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: Role, kind: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    monkeypatch.setenv("HUTONG_PARTICIPANT_SECRET", SECRET)
    with Peer(parse("127.0.0.1:0"), "p", Secret(SECRET)) as peer:
        command = [sys.executable, "-m", "sandbox.participants.process", "--folder", str(tmp_path), "--no-magic"]
        if kind == "sandbox":
            open_participant(tmp_path, role)._books.close()
        else:
            accounts = tmp_path / "accounts.csv"
            accounts.write_text(f"{TOKEN},CNY,{OPENING_MINOR}\n" if role is Role.ISSUER else f"{MERCHANT},CNY,0\n")
            program = ROOT / "examples" / "python" / "participant.py"
            command = [sys.executable, str(program), "--accounts", str(accounts), "--file", str(tmp_path / "p.db")]
        command += ["--target", peer.target, "--id", "p", "--role", role.name.lower()]
        with Started(command) as started:
            report = conform(replace(subject(role, restart=started.restart), connect_s=START_S), peer)
    assert failed(report) == {}
    assert {one.verdict for one in report.outcomes} == {Verdict.PASSED}


# -- planted faults --------------------------------------------------------------------------------------------------


class Changed:
    """A leg of which some fields are others."""

    def __init__(self, leg: Leg, **changes: object) -> None:
        for name in ("leg_id", "kind", "original_leg_id", "amount_minor", "currency", "account", "terminal_id"):
            setattr(self, name, changes.get(name, getattr(leg, name)))


class FaultyDesk(Desk):
    """A participant with one fault: `fault` gets each leg, and may carry it out with `sound`."""

    def __init__(self, participant: SimulatedParticipant, fault: Fault) -> None:
        super().__init__(participant)
        self._fault = fault
        self.memory: dict[bytes, Answer] = {}
        self.seen: dict[bytes, Leg] = {}

    def work(self, legs: Sequence[Leg]) -> Answers:
        answers: list[Answer] = []
        for leg in legs:
            answers += self._fault(self, leg)
            self.seen.setdefault(leg.leg_id, leg)
        return [(0, answers)]

    def sound(self, leg: Leg, **changes: object) -> list[Answer]:
        done = super().work([Changed(leg, **changes)])  # type: ignore[list-item]
        return [Answer(leg.leg_id, one.result, one.response_code) for _, answers in done for one in answers]


Fault = Callable[[FaultyDesk, Leg], list[Answer]]


def repeats_are_done_again(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    """The second time under another id: money moves twice."""
    if leg.leg_id in desk.seen and leg.kind in (DEBIT, AUTHORISATION, REFUND):
        return desk.sound(leg, leg_id=leg.leg_id[:15] + os.urandom(2))
    return desk.sound(leg)


def contents_are_not_compared(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    first = desk.seen.get(leg.leg_id)
    return desk.sound(first if first is not None and leg.kind != INQUIRY else leg)


def no_tombstones(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    """A reversal of what never came is approved and forgotten."""
    if leg.kind == REVERSAL and leg.original_leg_id not in desk.seen:
        return [Answer(leg.leg_id, OK, "00")]
    return desk.sound(leg)


def early_reversals_are_declined(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    if leg.kind == REVERSAL and leg.original_leg_id not in desk.seen:
        return [Answer(leg.leg_id, NO, "25")]
    return desk.sound(leg)


def inquiries_are_remembered(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    if leg.kind != INQUIRY:
        return desk.sound(leg)
    if leg.leg_id not in desk.memory:
        desk.memory[leg.leg_id] = desk.sound(leg)[0]
    return [desk.memory[leg.leg_id]]


def reversals_do_nothing(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    return [Answer(leg.leg_id, OK, "00")] if leg.kind == REVERSAL else desk.sound(leg)


def second_reversals_give_again(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    """A reversal under another id does the refund of a new debit: money appears."""
    first = desk.seen.get(leg.original_leg_id)
    done = desk.sound(leg)
    if leg.kind == REVERSAL and first is not None and first.kind == DEBIT:
        if leg.original_leg_id in desk.memory and leg.leg_id not in desk.seen:
            desk._participant.ledger._balances[desk._participant._books.reference(TOKEN), "CNY"] += leg.amount_minor
        desk.memory[leg.original_leg_id] = done[0]
    return done


def refunds_have_no_limit(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    return (
        [Answer(leg.leg_id, OK, "00")] if leg.kind == REFUND and leg.original_leg_id in desk.seen else desk.sound(leg)
    )


def any_account_will_do(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    return desk.sound(leg, account=TOKEN) if leg.kind == DEBIT else desk.sound(leg)


def unknown_accounts_are_not_honoured(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    return [Answer(one.leg_id, one.result, one.response_code.replace("14", "05")) for one in desk.sound(leg)]


def amounts_lose_their_sign(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    return desk.sound(leg, amount_minor=abs(leg.amount_minor))


def amounts_are_of_32_bits(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    return desk.sound(leg, amount_minor=leg.amount_minor % 2**32)


def overdrafts_are_given(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    return [Answer(one.leg_id, OK, "00") if one.response_code == "51" else one for one in desk.sound(leg)]


def credits_are_taken_by_issuers(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    return [Answer(leg.leg_id, OK, "00")] if leg.kind == CREDIT else desk.sound(leg)


def unknown_kinds_end_the_stream(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    if leg.kind not in (DEBIT, CREDIT, REVERSAL, REFUND, INQUIRY, AUTHORISATION, CAPTURE):
        desk.memory[b"broken"] = Answer(b"", NO, "")
    return [] if desk.memory else desk.sound(leg)


def holds_take_nothing(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    """An authorisation is approved and nothing set aside, if there is enough."""
    done = desk.sound(leg)
    if leg.kind == AUTHORISATION and done[0].result == OK:
        desk._participant.ledger._balances[desk._participant._books.reference(TOKEN), "CNY"] += leg.amount_minor
    return done


def captures_do_not_free_the_rest(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    before = desk.seen.get(leg.original_leg_id)
    done = desk.sound(leg)
    if leg.kind == CAPTURE and done[0].result == OK and before is not None and leg.leg_id not in desk.seen:
        key = desk._participant._books.reference(TOKEN), "CNY"
        desk._participant.ledger._balances[key] -= before.amount_minor - leg.amount_minor
    return done


def captures_come_twice(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    """The second capture of a hold is approved like the first."""
    done = desk.sound(leg)
    return [Answer(leg.leg_id, OK, "00")] if leg.kind == CAPTURE and done[0].response_code == "12" else done


def captures_outlive_their_holds(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    """A reversal of a captured authorisation is approved and undoes nothing."""
    if leg.kind == CAPTURE:
        desk.memory[leg.original_leg_id] = Answer(leg.leg_id, OK, "00")
    if leg.kind == REVERSAL and leg.original_leg_id in desk.memory:
        return [Answer(leg.leg_id, OK, "00")]
    return desk.sound(leg)


def answers_come_twice(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    return desk.sound(leg) * 2


def answers_to_nobody(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    return [*desk.sound(leg), Answer(os.urandom(17), OK, "00")]


def codes_are_words(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    return [Answer(one.leg_id, one.result, "declined" if one.result == NO else "00") for one in desk.sound(leg)]


def results_are_missing(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    return [Answer(leg.leg_id, 0, "96")] if leg.kind == REFUND else desk.sound(leg)


def silence(desk: FaultyDesk, leg: Leg) -> list[Answer]:
    desk.sound(leg)
    return []


ISSUER_FAULTS: list[tuple[Fault, str, str]] = [
    (repeats_are_done_again, "repeat", "after five times the same original: the account has 300 less"),
    (contents_are_not_compared, "other contents", "the same leg_id with another amount: APPROVED (00)"),
    (no_tombstones, "tombstone", "the original after its REVERSAL: APPROVED (00), where DECLINED is right"),
    (early_reversals_are_declined, "tombstone", "REVERSAL of a leg that has not come: DECLINED (25)"),
    (inquiries_are_remembered, "inquiry", "the same INQUIRY after the original: NOT_FOUND (25), where APPROVED"),
    (reversals_do_nothing, "reversal", "INQUIRY about a leg that was undone: APPROVED (00), where REVERSED is right"),
    (second_reversals_give_again, "reversal", "after a second REVERSAL under another leg_id: the account has 100 more"),
    (refunds_have_no_limit, "refunds", "REFUND of more than is left: APPROVED (00), where DECLINED is right"),
    (any_account_will_do, "unknown account", "the original on an unknown account: APPROVED (00)"),
    (unknown_accounts_are_not_honoured, "unknown account", "response code '05', where '14' is right"),
    (amounts_lose_their_sign, "amounts", "the original of -1: APPROVED (00), where DECLINED is right"),
    (amounts_are_of_32_bits, "funds", "DEBIT of 4294967297: APPROVED"),
    (overdrafts_are_given, "money", "the account has a gateway's largest amount"),
    (credits_are_taken_by_issuers, "nonsense", "CREDIT: APPROVED (00), where DECLINED is right"),
    (unknown_kinds_end_the_stream, "nonsense", "it answers nothing any more after UNSPECIFIED"),
    (holds_take_nothing, "authorisation", "AUTHORISATIONs that are reversed at once change what the account has"),
    (captures_do_not_free_the_rest, "capture", "after a CAPTURE of a part, sent twice: the account has 50 less"),
    (captures_come_twice, "capture", "a second CAPTURE of the same AUTHORISATION: APPROVED (00)"),
    (captures_outlive_their_holds, "undone capture", "after it: the account has 50 less than it should have"),
    (answers_come_twice, "answers", "legs that were answered more often than they were sent"),
    (answers_to_nobody, "answers", "answers to legs that were never sent"),
    (codes_are_words, "answers", "response codes that are not two characters"),
    (results_are_missing, "answers", "answers without a result that is one (UNSPECIFIED)"),
    (silence, "original", "no answer to AUTHORISATION within 0.5 s"),
]
ACQUIRER_FAULTS: list[tuple[Fault, str, str]] = [
    (no_tombstones, "tombstone", "the original after its REVERSAL: APPROVED (00), where DECLINED is right"),
    (refunds_have_no_limit, "refunds", "REFUND of more than is left: APPROVED (00), where DECLINED is right"),
    (repeats_are_done_again, "refunds", "REFUND of all that is left: DECLINED (13), where APPROVED is right"),
    (amounts_are_of_32_bits, "amounts", "where DECLINED is right"),
    (silence, "original", "no answer to CREDIT within 0.5 s"),
]


@pytest.mark.parametrize(
    ("role", "fault", "check", "finding"),
    [(Role.ISSUER, *row) for row in ISSUER_FAULTS] + [(Role.ACQUIRER, *row) for row in ACQUIRER_FAULTS],
    ids=lambda value: value.__name__ if callable(value) and not isinstance(value, Role) else None,
)
def test_a_planted_fault_is_named(tmp_path: Path, role: Role, fault: Fault, check: str, finding: str) -> None:
    silent = fault in (silence, unknown_kinds_end_the_stream)
    desk = FaultyDesk(open_participant(tmp_path, role), fault)
    only = (check,) if check in {one.name for one in checks_of(role)} else ("refunds", "unknown account")
    report = examine(desk, role, *only, answer_s=SILENCE_S if silent else CALL_S)
    (outcome,) = [one for one in report.outcomes if one.name == check]
    assert outcome.verdict is (Verdict.SKIPPED if check == "money" else Verdict.FAILED)
    assert finding in "; ".join(outcome.findings)


def test_a_participant_that_forgets_when_its_stream_ends_fails(tmp_path: Path) -> None:
    class Forgetful(Runner):
        """Books of its own for each stream."""

        def _serve_once(self) -> bool:
            folder = tmp_path / os.urandom(4).hex()
            self._desk = Desk(open_participant(folder, Role.ISSUER))
            return super()._serve_once()

    with Peer(parse("127.0.0.1:0"), "p", Secret(SECRET)) as peer, open_channel(peer.target, ClientOptions()) as channel:
        runner = Forgetful(Desk(open_participant(tmp_path / "first", Role.ISSUER)), channel, Secret(SECRET))
        thread = threading.Thread(target=runner.run)
        thread.start()
        report = conform(subject(Role.ISSUER), peer, only=frozenset({"original", "reconnect"}))
        runner.stop()
        thread.join(CALL_S)
    assert failed(report).keys() == {"reconnect"}


def test_a_participant_that_does_not_connect_again_fails_and_nothing_more_is_asked(tmp_path: Path) -> None:
    with Peer(parse("127.0.0.1:0"), "p", Secret(SECRET)) as peer, open_channel(peer.target, ClientOptions()) as channel:
        runner = Runner(Desk(open_participant(tmp_path, Role.ISSUER)), channel, Secret(SECRET))
        thread = threading.Thread(target=runner._serve_once)
        thread.start()
        once = Subject("p", Role.ISSUER, TOKEN, answer_s=CALL_S, connect_s=3.0)
        report = conform(once, peer, only=frozenset({"original", "reconnect", "funds"}))
        runner.stop()
        thread.join(CALL_S)
    assert failed(report) == {"reconnect": "it did not connect again within 3 s"}
    skipped = {one.name: one.findings for one in report.outcomes if one.verdict is Verdict.SKIPPED}
    assert skipped == {"funds": ("not connected after 'reconnect'",)}


def test_a_wrong_secret_and_a_wrong_name_are_found(tmp_path: Path) -> None:
    desk = Desk(open_participant(tmp_path, Role.ISSUER))
    with Peer(parse("127.0.0.1:0"), "p", Secret(SECRET)) as peer, open_channel(peer.target, ClientOptions()) as channel:
        for name, secret, finding in (
            ("p", "another", "the secret of a Hello is not the one of the directory"),
            ("q", SECRET, "a Hello names 'q', not 'p'"),
        ):
            desk.id = name
            runner = Runner(desk, channel, Secret(secret))
            with pytest.raises(Exception, match="PARTICIPANT_"):
                runner.run()
            assert peer.breaches.pop() == finding
        once = Subject("p", Role.ISSUER, TOKEN, connect_s=0.1)
        report = conform(once, peer, only=frozenset({"original"}))
    assert failed(report) == {"original": "it did not connect within 0.1 s"}


def test_duplicates_and_garbage_of_the_sandboxs_own_scripts_are_found(tmp_path: Path) -> None:
    participant = open_participant(tmp_path, Role.ISSUER)
    participant.script = Script(duplicate=0.2, garbage=0.2)
    report = examine(Desk(participant), Role.ISSUER, "repeat", "refunds")
    assert "answers to legs that were never sent" in failed(report)["answers"]


def test_it_is_checked_over_mutual_tls(tmp_path: Path) -> None:
    authority = issue(tmp_path, "authority")
    name = "gateway.hutong.example"
    gateway, own = issue(tmp_path, name, authority), issue(tmp_path, "p", authority)
    served = Tls(gateway.certificate, gateway.key, authority.certificate)
    options = TlsOptions(
        authority.certificate.read_bytes(), own.key.read_bytes(), own.certificate.read_bytes(), server_name=name
    )
    desk = Desk(open_participant(tmp_path / "books", Role.ISSUER))
    with Peer(parse("127.0.0.1:0"), "p", None, served) as peer, running(desk, peer.target, tls=options):
        report = conform(subject(Role.ISSUER), peer, only=frozenset({"original", "reconnect"}))
    assert failed(report) == {}


def test_late_answers_are_found(tmp_path: Path) -> None:
    """A debit that is answered only when its inquiry would have been sent, and no sooner than that."""
    participant = open_participant(tmp_path, Role.ISSUER)

    class Late(Desk):
        def work(self, legs: Sequence[Leg]) -> Answers:
            answered = super().work(legs)
            late_us = int(2 * SILENCE_S * 1e6) if any(leg.kind == DEBIT for leg in legs) else 0
            return [(late_us, answers) for _, answers in answered]

    report = examine(Late(participant), Role.ISSUER, "original", "repeat", answer_s=SILENCE_S)
    assert failed(report)["original"] == f"no answer to DEBIT within {SILENCE_S:g} s"
    assert f"answers that came later than {SILENCE_S:g} s" in failed(report)["answers"]


def test_an_account_with_too_little_is_said_first(tmp_path: Path) -> None:
    participant = open_participant(tmp_path, Role.ISSUER)
    participant.ledger.open_accounts([("poor", "CNY", 150)])
    with Peer(parse("127.0.0.1:0"), "p", None) as peer, running(Desk(participant), peer.target):
        report = conform(replace(subject(Role.ISSUER), account="poor"), peer, only=frozenset({"original"}))
    assert failed(report) == {"original": "the account has 150, too little for these checks: it needs 2000"}


def test_an_error_status_ends_a_stream_as_it_says() -> None:
    """What checks rely on: the participant sees the status with which its stream ended."""
    statuses: list[grpc.StatusCode] = []
    with Peer(parse("127.0.0.1:0"), "p", None) as peer, open_channel(peer.target, ClientOptions()) as channel:
        from hutong.participant.v1 import participant_pb2_grpc as rpc

        hello = pb.ConnectRequest(hello=pb.Hello(participant_id="p"))
        ended = threading.Event()

        def requests() -> Iterator[pb.ConnectRequest]:
            yield hello
            ended.wait(CALL_S)

        for status in (grpc.StatusCode.UNAVAILABLE, None):
            call = rpc.ParticipantServiceStub(channel).Connect(requests())
            assert next(call).welcome.window > 0
            stream = peer.stream(CALL_S)
            assert stream is not None
            stream.end(status)
            with pytest.raises((grpc.RpcError, StopIteration)):
                next(call)
            statuses.append(call.code())
            assert stream.gone.wait(CALL_S)
        ended.set()
    assert statuses == [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK]
