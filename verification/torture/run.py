"""A torture run: everything is started, loaded and hurt in turns, settled, checked, and taken down."""

from __future__ import annotations

import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.journal.report import Report
from sandbox.checking import check_folder
from sandbox.institutions import BOOKS_FOLDER
from sandbox.journals import JournalError
from sandbox.participants.books import FILE_NAME, totals
from verification.torture.disk import Disk
from verification.torture.faults import FAULTS, draw
from verification.torture.line_faults import LINE_FAULTS
from verification.torture.load import Asker
from verification.torture.processes import TortureError
from verification.torture.put_back import put_back
from verification.torture.recovery import JournalView, Recovery
from verification.torture.scene import POLL_S, Options, Scene
from verification.torture.verify import (
    Losses,
    Told,
    ask_again,
    compare_answers,
    compare_books,
    compare_codes,
    compare_journal,
)

BETWEEN_S: Final = (0.2, 1.2)
"""Load between two faults."""
DARK_SHARE: Final = 0.3
"""Share of turns in which a fault is inflicted although no gateway works, so that it meets the recovery from the last
one."""
RECOVER_S: Final = 120.0
"""Seconds from a restart until a new payment must have succeeded; a longer time is a finding."""
CHECK_S: Final = 15.0
"""Between checks while everything runs and dies."""
SETTLE_S: Final = 150.0
"""Seconds after the last fault until nothing must be in flight: reversals wait up to 60 s between two attempts."""
ASK_AGAIN_S: Final = 30.0
"""For a call at the end."""

ALL_FAULTS: Final = (*FAULTS, *LINE_FAULTS)

Progress = Callable[[str], None]


@dataclass(slots=True)
class Outcome:
    """The result of a run."""

    report: dict[str, Any] = field(default_factory=dict)
    losses: Losses = field(default_factory=Losses)
    findings: list[str] = field(default_factory=list)
    checks: int = 0
    checks_skipped: int = 0
    """The journal or a book could not be read: its disk was full, or its server away."""

    @property
    def good(self) -> bool:
        """Whether nothing was lost and nothing is wrong."""
        return not self.losses.count and not self.findings


class Run:
    """One torture run; call `play` once."""

    def __init__(self, options: Options, disk: Disk, progress: Progress) -> None:
        self._options = options
        self._progress = progress
        self._rng = random.Random(options.seed)
        self._scene = Scene(options, disk)
        self._stage, self._record = self._scene.stage, self._scene.record
        self._view = JournalView(self._scene.data, self._scene.url)
        self._outcome = Outcome()
        self._checking = threading.Thread()

    def play(self) -> Outcome:
        """Plays the run, and leaves no process behind. Raises TortureError where it cannot even begin."""
        began_s = time.monotonic()
        with self._scene.held():
            self._progress("starting")
            self._scene.start()
            recovery = Recovery(self._view)
            recovery.start()
            try:
                self._torture(recovery)
                self._scene.load.end()
                self._finish()
                self._put_back()
            finally:
                recovery.stop()
            self._report(recovery)
        self._outcome.report["seconds"] = round(time.monotonic() - began_s, 1)
        return self._outcome

    # -- middle ----------------------------------------------------------------------------------------------

    def _torture(self, recovery: Recovery) -> None:
        stage, rng = self._stage, self._rng
        next_check_s = time.monotonic()
        end_s = time.monotonic() + self._options.seconds
        while time.monotonic() < end_s and stage.kills.total() < self._options.kills_max:
            self._let_pay(rng.uniform(*BETWEEN_S), recovery)
            if not any(gateway.listens() for gateway in stage.gateways) and rng.random() > DARK_SHARE:
                continue
            fault = draw(stage, rng, ALL_FAULTS)
            self._tell(fault.inflict.__name__.replace("_", " "))
            recovery.began(fault.inflict(stage, rng))
            if time.monotonic() > next_check_s:
                next_check_s = time.monotonic() + CHECK_S
                self._check_meanwhile()
        self._recover(recovery)

    def _tell(self, what: str) -> None:
        kills = self._stage.kills.total()
        self._progress(
            f"{kills} kills, {len(self._record.answers):,} answers, {len(self._all_findings())} findings: {what}"
        )

    def _let_pay(self, seconds: float, recovery: Recovery) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self._look(recovery)
            time.sleep(POLL_S)

    def _look(self, recovery: Recovery) -> None:
        self._stage.supervise()
        if self._scene.load.ended():
            raise TortureError(f"the load ended: {self._scene.load.last_words()}")
        recovery.told(self._record.read(), self._record.asked)
        self._outcome.findings.extend(
            f"after a fault ({kind}) no payment succeeded for {RECOVER_S:.0f} s"
            for kind in recovery.late(time.monotonic_ns() - int(RECOVER_S * 1e9))
        )

    def _recover(self, recovery: Recovery) -> None:
        """Waits until payments succeed again through all that was put back."""
        while recovery.waiting:
            self._look(recovery)
            time.sleep(POLL_S)

    def _check_meanwhile(self) -> None:
        """In a thread, so that it meets the next faults; one at a time."""
        if not self._checking.is_alive():
            self._checking = threading.Thread(target=self._check, name="check", daemon=True)
            self._checking.start()

    def _check(self) -> Report | None:
        """The conservation check, in use or not; faults become findings."""
        try:
            report = check_folder(self._scene.data, self._scene.url)
        except (JournalError, sqlite3.Error, OSError):
            self._outcome.checks_skipped += 1
            return None
        self._outcome.checks += 1
        self._outcome.findings.extend(f"check: {finding}" for finding in report.findings)
        return report

    def _all_findings(self) -> list[str]:
        return [*self._outcome.findings, *self._stage.findings]

    # -- end -------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """The end, without further faults: everything must settle, and agree."""
        stage, outcome, record = self._stage, self._outcome, self._record
        record.read()
        if self._checking.is_alive():
            self._checking.join()
        self._progress("asking everything again")
        asker = Asker(self._scene.targets, self._scene.payers, deadline_s=ASK_AGAIN_S)
        try:
            self._ask_again(asker)
            self._settle()
            again = self._ask_again(asker)
        finally:
            asker.close()
        for gateway in stage.gateways:
            if not gateway.pid:
                outcome.findings.append(f"{gateway.name} does not run at the end: {gateway.last_words()[-500:]}")
        self._progress("checking")
        report = self._check()
        if report is None:
            raise TortureError("the journal cannot be read at the end")
        if report.in_flight:
            outcome.findings.append(f"{report.in_flight} payments are in flight {SETTLE_S:.0f} s after the last fault")
        compare_answers(record, again, outcome.losses)
        compare_journal(record, self._view.states(), outcome.losses)
        books: dict[tuple[str, bytes, str], int] = {}
        for path in sorted((self._scene.data / BOOKS_FOLDER).rglob(FILE_NAME)):
            books.update(totals(path))
        compare_books(record, books, outcome.losses)
        compare_codes(record, again, outcome.losses)
        outcome.findings.extend(stage.findings)
        outcome.report.update(payments=report.payments, by_state=report.by_state, conserved=report.conserved)
        outcome.report["checks"] = {"made": outcome.checks, "skipped": outcome.checks_skipped}

    def _put_back(self) -> None:
        """After all that must agree was compared: what is lost now must be noticed."""
        if self._stage.postgres is not None and self._outcome.good:
            self._progress("the database is put back")
            scene = self._scene
            found = put_back(self._stage, scene.payers, scene.shops, self._options.folder / "kept")
            self._outcome.findings.extend(found)
            self._outcome.report["put_back"] = True

    def _ask_again(self, asker: Asker) -> Told:
        total = len(self._record.asked)
        self._stage.supervise()

        def progress(done: int) -> None:
            self._progress(f"asking everything again: {done:,} of {total:,}")

        return ask_again(asker, self._record.asked.values(), self._rng, progress)

    def _settle(self) -> None:
        until_s = time.monotonic() + SETTLE_S
        while time.monotonic() < until_s:
            self._stage.supervise()
            left = self._view.open_payments()
            if left is not None and not left:
                return
            self._progress(f"{'?' if left is None else len(left)} in flight are being settled")
            time.sleep(POLL_S * 5)

    def _report(self, recovery: Recovery) -> None:
        stage, record = self._stage, self._record
        acknowledged = {answer.payment_id for answer in record.answers if answer.final}
        options = self._options
        self._outcome.report.update(
            seed=options.seed,
            journal="postgres" if options.postgres else "sqlite",
            gateways=options.gateways,
            kills={**stage.kills, "total": stage.kills.total()},
            pauses=dict(stage.pauses),
            cuts=dict(stage.cuts),
            full_disks=stage.full_disks,
            full_disk_by=stage.disk.method,
            wrong_clocks=stage.wrong_clocks,
            restarts=dict(stage.restarts),
            requests=len(record.asked),
            answers=len(record.answers),
            acknowledged=len(acknowledged),
            refusals=dict(record.refusals.most_common()),
            recovery_s=recovery.as_json(),
        )

    def keep(self, folder: Path) -> None:
        """Copies disk, logs and record to a place that stays."""
        shutil.copytree(self._options.folder, folder, dirs_exist_ok=True, ignore=_sockets)


def _sockets(folder: str, names: list[str]) -> set[str]:
    """What cannot be copied."""
    return {name for name in names if (Path(folder) / name).is_socket()}
