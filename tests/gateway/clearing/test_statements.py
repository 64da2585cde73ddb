"""Statements as text: CSV after RFC 4180, XML in the order of camt.053.001.08, amounts in the currency's decimals."""

from __future__ import annotations

import csv
import io
import os
import string
import xml.etree.ElementTree as ET
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clearing.camt import NAMESPACE
from gateway.clearing.files import FileSink, verify, write_files
from gateway.clearing.model import Carried, Position, Settled, Window
from gateway.clearing.positions import Positions
from gateway.clearing.statement import COLUMNS
from gateway.clearing.statements import Format, Statement, content, statements
from gateway.clearing.text import NAME_MAX, decimal, short_name, signed, utc
from hutong_contract.cleaning import cell, printable

CLOSED_US = 1_790_000_000_123_456
WINDOW = Window(7, 10, 90, CLOSED_US - 900_000_000, CLOSED_US, (Carried("CNY", 1, 5),))

ORDER = {
    "Document": ["BkToCstmrStmt"],
    "BkToCstmrStmt": ["GrpHdr", "Stmt"],
    "GrpHdr": ["MsgId", "CreDtTm"],
    "Stmt": ["Id", "ElctrncSeqNb", "CreDtTm", "FrToDt", "Acct", "Bal", "TxsSummry", "Ntry"],
    "FrToDt": ["FrDtTm", "ToDtTm"],
    "Acct": ["Id", "Ccy"],
    "Bal": ["Tp", "Amt", "CdtDbtInd", "Dt"],
    "TxsSummry": ["TtlNtries", "TtlCdtNtries", "TtlDbtNtries"],
    "TtlNtries": ["NbOfNtries", "Sum", "TtlNetNtry"],
    "TtlNetNtry": ["Amt", "CdtDbtInd"],
    "TtlCdtNtries": ["NbOfNtries", "Sum"],
    "TtlDbtNtries": ["NbOfNtries", "Sum"],
    "Ntry": ["NtryRef", "Amt", "CdtDbtInd", "Sts", "BookgDt", "AcctSvcrRef", "BkTxCd", "NtryDtls"],
    "NtryDtls": ["TxDtls"],
    "TxDtls": ["Refs", "Amt", "CdtDbtInd", "RmtInf"],
    "Refs": ["AcctSvcrRef", "EndToEndId"],
}
"""Element to what may stand in it, in the message's order; everything else holds text or one choice."""
MAX_35 = {"MsgId", "NtryRef", "AcctSvcrRef", "EndToEndId"}


def settled(number: int, **changes: Any) -> Settled:
    plain = Settled(
        CLOSED_US - 1000 + number,
        number.to_bytes(16, "big"),
        1,
        1250,
        "CNY",
        "issuer-a",
        "acquirer-a",
        "m1001",
        "t1",
        "order 1",
        "0009",
        None,
        CLOSED_US - 2000,
    )
    return plain._replace(**changes)


LINES = [
    settled(1),
    settled(2, amount_minor=99, reference='quote " comma , line\r\nend & < > ]]>'),
    settled(3, kind=2, debtor="acquirer-a", creditor="issuer-a", amount_minor=30, original_id=bytes(15) + b"\x01"),
    settled(4, currency="JPY", amount_minor=700, reference="x" * 64),
    settled(5, currency="KWD", amount_minor=1, creditor="acquirer-b", reference="\x00\x1f￾"),
]


def positions(lines: list[Settled]) -> list[Position]:
    added = Positions()
    added.add((one.kind, one.currency, one.debtor, one.creditor, 1, one.amount_minor) for one in lines)
    return added.all()


def text(statement: Statement, lines: list[Settled] = LINES) -> str:
    return b"".join(content(statement, WINDOW, positions(lines), lines)).decode()


def local(element: ET.Element) -> str:
    assert element.tag.startswith(f"{{{NAMESPACE}}}")
    return element.tag.removeprefix(f"{{{NAMESPACE}}}")


def check_order(element: ET.Element) -> None:
    children = [local(child) for child in element]
    allowed = ORDER.get(local(element))
    if allowed is not None:
        places = [allowed.index(child) for child in children]
        assert places == sorted(places), (local(element), children)
    else:
        assert len(children) <= 1, (local(element), children)
    if not children:
        assert element.text, local(element)
    if local(element) in MAX_35:
        assert len(element.text or "") <= NAME_MAX
    if local(element) == "Amt":
        assert set(element.text or "") <= set(string.digits + ".")
    for child in element:
        check_order(child)


@pytest.mark.parametrize(("participant", "currency"), [(one.participant, one.currency) for one in positions(LINES)])
def test_camt_has_the_order_and_the_sums(participant: str, currency: str) -> None:
    root = ET.fromstring(text(Statement(participant, Format.CAMT053, currency)))
    check_order(root)
    names = {"c": NAMESPACE}
    (position,) = [one for one in positions(LINES) if (one.participant, one.currency) == (participant, currency)]
    net = Decimal(0)
    entries = root.findall(".//c:Ntry", names)
    for entry in entries:
        amount = entry.find("c:Amt", names)
        assert amount is not None
        assert amount.get("Ccy") == currency
        sign = 1 if entry.findtext("c:CdtDbtInd", None, names) == "CRDT" else -1
        net += sign * Decimal(amount.text or "")
    assert len(entries) == position.count == int(root.findtext(".//c:TtlNtries/c:NbOfNtries", "", names))
    balances = {
        bal.findtext("c:Tp/c:CdOrPrtry/c:Cd", "", names): Decimal(bal.findtext("c:Amt", "", names))
        * (1 if bal.findtext("c:CdtDbtInd", "", names) == "CRDT" else -1)
        for bal in root.findall(".//c:Bal", names)
    }
    assert balances == {"OPBD": 0, "CLBD": net}
    assert signed(position.net_minor, currency) == f"{net} {currency}"


def test_references_survive_xml_or_are_kept_as_remittance() -> None:
    root = ET.fromstring(text(Statement("issuer-a", Format.CAMT053, "CNY")))
    names = {"c": NAMESPACE}
    found = [entry.findtext(".//c:EndToEndId", "", names) for entry in root.findall(".//c:Ntry", names)]
    assert found == ["order 1", printable(LINES[1].reference), "order 1"]
    root = ET.fromstring(text(Statement("issuer-a", Format.CAMT053, "JPY")))
    assert root.findtext(".//c:EndToEndId", "", names) == "NOTPROVIDED"
    assert root.findtext(".//c:Ustrd", "", names) == "x" * 64


def test_csv_is_rfc_4180_and_reads_back() -> None:
    made = text(Statement("issuer-a", Format.CSV))
    assert made.startswith(",".join(COLUMNS) + "\r\n")
    rows = list(csv.DictReader(io.StringIO(made, newline=""), strict=True))
    assert [row["payment_id"][-1] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [row["amount"] for row in rows] == ["12.50", "0.99", "0.30", "700", "0.001"]
    assert [row["direction"] for row in rows] == ["debit", "debit", "credit", "debit", "debit"]
    assert rows[1]["reference"] == cell(LINES[1].reference)
    assert rows[2]["original_payment_id"] == "00000000-0000-0000-0000-000000000001"
    assert list(csv.DictReader(io.StringIO(text(Statement("nobody", Format.CSV)), newline=""))) == []


def test_a_participant_with_nothing_has_an_empty_camt() -> None:
    root = ET.fromstring(text(Statement("nobody", Format.CAMT053, "CNY")))
    check_order(root)
    assert not root.findall(f".//{{{NAMESPACE}}}Ntry")


def test_the_first_window_has_no_beginning() -> None:
    first = replace(WINDOW, number=1, opened_us=0)
    made = b"".join(content(Statement("issuer-a", Format.CAMT053, "CNY"), first, positions(LINES), LINES))
    assert b"FrToDt" not in made
    check_order(ET.fromstring(made))


@settings(max_examples=60)
@given(st.text(max_size=64), st.integers(1, 10**12), st.sampled_from(["CNY", "JPY", "KWD"]))
def test_any_reference_makes_readable_files(reference: str, amount: int, currency: str) -> None:
    line = settled(1, reference=reference.encode("utf-8", "replace").decode(), amount_minor=amount, currency=currency)
    root = ET.fromstring(text(Statement("issuer-a", Format.CAMT053, currency), [line]))
    check_order(root)
    (row,) = csv.DictReader(io.StringIO(text(Statement("issuer-a", Format.CSV), [line]), newline=""), strict=True)
    assert row["reference"] == cell(line.reference)
    assert Decimal(row["amount"]).scaleb({"CNY": 2, "JPY": 0, "KWD": 3}[currency]) == amount


def test_positions_balance_in_each_currency() -> None:
    found = positions(LINES)
    for currency in {one.currency for one in found}:
        assert sum(one.net_minor for one in found if one.currency == currency) == 0
    issuer = next(one for one in found if (one.participant, one.currency) == ("issuer-a", "CNY"))
    assert (issuer.net_minor, issuer.gross_minor, issuer.count) == (-1250 - 99 + 30, 1250 + 99 + 30, 3)
    assert issuer.refunds_received.amount_minor == 30


def test_texts() -> None:
    assert [decimal(5, one) for one in ("CNY", "JPY", "KWD")] == ["0.05", "5", "0.005"]
    assert signed(-1250, "CNY") == "-12.50 CNY"
    assert signed(-3, "???") == "-3 ???"
    assert utc(CLOSED_US) == "2026-09-21T14:13:20.123456Z"
    assert short_name("a", "b") == "a-b"
    long = short_name("x" * 60)
    assert len(long) == NAME_MAX
    assert long != short_name("x" * 61)


def test_statements_are_their_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        sink = FileSink(tmp_path / "statement.csv")
        sink.write(b"who paid whom")
        sink.finish()
    finally:
        os.umask(before)
    assert (tmp_path / "statement.csv").stat().st_mode & 0o777 == 0o600


def test_a_window_that_cannot_be_written_leaves_nothing_half(tmp_path: Path) -> None:
    """Names that no file system takes as they are, and a source that breaks off."""
    lines = [one._replace(creditor="../a/b") if one.creditor == "acquirer-a" else one for one in LINES]
    wanted = statements(positions(lines))

    def breaking() -> list[Settled]:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        write_files(WINDOW, wanted, positions(lines), (one for _ in range(1) for one in breaking()), tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    entries = write_files(WINDOW, wanted, positions(lines), lines, tmp_path)
    assert "..%2Fa%2Fb.csv" in [entry.name for entry in entries]
    target = tmp_path / "window-000007"
    assert list(verify(target)) == []
    (target / entries[0].name).write_bytes(b"changed")
    (target / entries[1].name).unlink()
    assert list(verify(target)) == [f"{entries[0].name} is not what the manifest says", f"{entries[1].name} is missing"]
