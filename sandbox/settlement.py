"""Access to settlement windows at a running gateway, or in a data folder that is in use or not."""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Protocol

from gateway.clearing.files import FileEntry, FileSink, folder_name, write_files, write_manifest
from gateway.clearing.model import Carried, Position, Tally, Window
from gateway.clearing.reader import ClearingReader, Progress
from gateway.clearing.reconcile import Ours
from gateway.clearing.statements import Format, Statement, statements
from gateway.engine.clock import Clock
from gateway.engine.model import LegKind, LegState, Writes
from gateway.engine.states import FINAL, State
from gateway.journal.interface import Reader
from hutong.gateway.v1 import payment_pb2, settlement_pb2
from hutong_client.client import FINAL_STATES, HutongClient
from hutong_client.settlement import SettlementClient
from hutong_contract.errors import HutongError, Reason
from sandbox.journals import SQLITE_FILE, JournalError, compare_clock, open_journal, open_journal_reader, remembered_url

KEY_FILE: Final = "gateway.key"


class Desk(Protocol):
    """Settlement windows at a gateway or in a folder. Raises HutongError, CallError, JournalError,
    JournalUnavailableError, OSError."""

    def close_window(self, number: int) -> Window:
        """Closes the next window, or returns it if it was closed before."""
        ...

    def windows(self) -> Iterator[Window]:
        """Closed windows, newest first."""
        ...

    def window(self, number: int) -> Window:
        """A closed window."""
        ...

    def positions(self, window: Window, progress: Progress) -> list[Position]:
        """Those that this caller may see."""
        ...

    def write(self, window: Window, positions: Sequence[Position], folder: Path, progress: Progress) -> list[FileEntry]:
        """Writes the statements of the participants of these positions, with a manifest."""
        ...

    def settled(self, window: Window, participant: str, progress: Progress) -> Iterator[Ours]:
        """The payments of one participant in a window."""
        ...

    def is_pending(self, payment_id: bytes, participant: str) -> bool:
        """Whether a payment that no closed window holds may still be settled with a participant, or be reversed
        there."""
        ...


class FolderDesk:
    """A data folder, in use or not. Only in one that is not in use can a window be closed."""

    def __init__(self, folder: Path, url: str, stack: ExitStack) -> None:
        url = url or remembered_url(folder)
        if not url and not (folder / SQLITE_FILE).exists():
            raise JournalError(f"{folder} holds no {SQLITE_FILE}; name the folder given to hutong up --data")
        self._folder = folder
        self._url = url
        self._reader: Reader = open_journal_reader(folder, url)
        stack.callback(self._reader.close)
        self._clearing = ClearingReader(self._reader)

    def close_window(self, number: int) -> Window:
        """Closes the open window. Raises JournalError while a gateway runs on the folder."""
        last = self._clearing.last()
        if number > (last.number if last else 0) + 1:
            raise HutongError(Reason.ERROR_REASON_WINDOW_NOT_NEXT, next=str((last.number if last else 0) + 1))
        if last is None or number > last.number:
            clock = Clock()
            compare_clock(self._url, clock)
            key = self._folder / KEY_FILE
            opened = open_journal(self._folder, self._url, key=key.read_bytes() if key.exists() else b"")
            try:
                opened.journal.commit(Writes(closings=[(number, clock.now_us())]))
            finally:
                opened.journal.close()
                opened.unlock()
        return self._clearing.window(number)

    def windows(self) -> Iterator[Window]:
        before = [2**62]
        while found := self._clearing.windows(before[0], 500):
            yield from found
            before[0] = found[-1].number

    def window(self, number: int) -> Window:
        return self._clearing.window(number)

    def positions(self, window: Window, progress: Progress) -> list[Position]:
        return self._clearing.positions(window, progress)

    def write(self, window: Window, positions: Sequence[Position], folder: Path, progress: Progress) -> list[FileEntry]:
        settled = self._clearing.settled(window, progress)
        return write_files(window, statements(positions), positions, settled, folder)

    def settled(self, window: Window, participant: str, progress: Progress) -> Iterator[Ours]:
        for one in self._clearing.settled(window, progress):
            if amount := one.signed(participant):
                yield Ours(one.payment_id, window.number, one.currency, amount)

    def is_pending(self, payment_id: bytes, participant: str) -> bool:
        payment = self._reader.payment(payment_id)
        if payment is None:
            return False
        undoing = any(leg.kind is LegKind.REVERSAL and leg.state is LegState.SENT for leg in payment.legs)
        party = participant in (payment.debtor, payment.creditor)
        return payment.state not in FINAL or undoing or (payment.state is State.SUCCEEDED and party)


class GatewayDesk:
    """A running gateway."""

    def __init__(self, client: HutongClient, settlement: SettlementClient) -> None:
        self._client = client
        self._settlement = settlement

    def close_window(self, number: int) -> Window:
        return _window(self._settlement.close_window(number))

    def windows(self) -> Iterator[Window]:
        return map(_window, self._settlement.windows())

    def window(self, number: int) -> Window:
        return _window(self._settlement.window(number))

    def positions(self, window: Window, progress: Progress) -> list[Position]:
        return [_position(one) for one in self._settlement.positions(window.number)]

    def write(self, window: Window, positions: Sequence[Position], folder: Path, progress: Progress) -> list[FileEntry]:
        target = folder / folder_name(window.number)
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        wanted = statements(positions)
        entries: list[FileEntry] = []
        for done, statement in enumerate(wanted, start=1):
            sink = FileSink(target / statement.file_name)
            try:
                for content in self._content(statement, window):
                    sink.write(content)
            except BaseException:
                sink.abandon()
                raise
            entries.append(sink.finish())
            progress(done, len(wanted))
        write_manifest(target, window.number, entries)
        return entries

    def _content(self, statement: Statement, window: Window) -> Iterator[bytes]:
        return self._settlement.statement(
            window.number, statement.participant, int(statement.format), statement.currency
        )

    def settled(self, window: Window, participant: str, progress: Progress) -> Iterator[Ours]:
        stream = io.BufferedReader(_Stream(self._content(Statement(participant, Format.CSV), window)))
        for row in csv.DictReader(io.TextIOWrapper(stream, "utf-8", newline="")):
            amount = int(row["amount_minor"]) * (-1 if row["direction"] == "debit" else 1)
            yield Ours(uuid.UUID(row["payment_id"]).bytes, window.number, row["currency"], amount)

    def is_pending(self, payment_id: bytes, participant: str) -> bool:
        try:
            found = self._client.get_payment(str(uuid.UUID(bytes=payment_id)))
        except HutongError as error:
            if error.reason == Reason.ERROR_REASON_PAYMENT_NOT_FOUND:
                return False
            raise
        payment = found.payment
        undoing = any(leg.kind == "reversal" and leg.state == "sent" for leg in found.legs)
        party = participant in (payment.issuer_id, payment.acquirer_id)
        done = payment.state == payment_pb2.PAYMENT_STATE_SUCCEEDED
        return payment.state not in FINAL_STATES or undoing or (done and party)


class _Stream(io.RawIOBase):
    """Pieces of bytes as a file to read from."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            self._left = memoryview(next(self._pieces, b""))
        taken = min(len(buffer), len(self._left))
        buffer[:taken] = self._left[:taken]
        self._left = self._left[taken:]
        return taken


def _window(message: settlement_pb2.SettlementWindow) -> Window:
    return Window(
        message.number,
        message.after_sequence,
        message.last_sequence,
        message.open_time.ToMicroseconds() if message.HasField("open_time") else 0,
        message.close_time.ToMicroseconds(),
        tuple(Carried(one.currency, one.payments, one.amount_minor) for one in message.carried),
    )


def _position(one: settlement_pb2.SettlementPosition) -> Position:
    return Position(
        one.participant_id,
        one.currency,
        Tally(one.debit_count, one.debit_minor),
        Tally(one.credit_count, one.credit_minor),
        Tally(one.refund_paid_count, one.refund_paid_minor),
        Tally(one.refund_received_count, one.refund_received_minor),
    )
