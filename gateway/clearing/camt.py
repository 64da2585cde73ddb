"""A participant's statement in the shape of ISO 20022 camt.053.001.08 (BankToCustomerStatement). Pure.

One file has one statement: one participant, one currency. Elements stand in the message's order; no conformance to the
standard or to anybody's usage of it is claimed. Amounts are never negative: CRDT is what the participant receives in
settlement, DBIT what it pays. Each window begins at zero, so the closing balance is the net position.
"""

from __future__ import annotations

from typing import Final
from xml.sax.saxutils import escape

from gateway.clearing.model import Position, Settled, Tally, Window, is_refund
from gateway.clearing.text import NAME_MAX, decimal, short_name, utc
from hutong_contract.cleaning import printable

NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"
NOT_PROVIDED: Final = "NOTPROVIDED"
"""EndToEndId of a payment whose reference is empty or does not fit."""


class CamtWriter:
    """Writes a statement as camt.053 XML."""

    def __init__(self, window: Window, position: Position) -> None:
        """`position` is that of the statement's participant and currency."""
        self._window = window
        self._position = position
        self._currency = position.currency
        self._name = short_name(str(window.number), position.currency, position.participant)

    def begin(self) -> str:
        """The header, the account, its balances and sums."""
        window, name = self._window, _text(self._name)
        closed = utc(window.closed_us)
        period = ""
        if window.opened_us:
            period = f"<FrToDt><FrDtTm>{utc(window.opened_us)}</FrDtTm><ToDtTm>{closed}</ToDtTm></FrToDt>"
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<Document xmlns="{NAMESPACE}"><BkToCstmrStmt>'
            f"<GrpHdr><MsgId>{name}</MsgId><CreDtTm>{closed}</CreDtTm></GrpHdr>"
            f"<Stmt><Id>{name}</Id><ElctrncSeqNb>{window.number}</ElctrncSeqNb><CreDtTm>{closed}</CreDtTm>{period}"
            f"<Acct><Id><Othr><Id>{_text(short_name(self._position.participant))}</Id></Othr></Id>"
            f"<Ccy>{self._currency}</Ccy></Acct>"
            f"{self._balance('OPBD', 0, window.opened_us or window.closed_us)}"
            f"{self._balance('CLBD', self._position.net_minor, window.closed_us)}{self._summary()}\n"
        )

    def line(self, settled: Settled) -> str:
        """One entry of the account."""
        if settled.currency != self._currency:
            return ""
        pays = settled.debtor == self._position.participant
        refund = is_refund(settled.kind)
        key = settled.payment_id.hex()
        reference = _text(settled.reference)
        fits = 0 < len(settled.reference) <= NAME_MAX
        remittance = f"<RmtInf><Ustrd>{reference}</Ustrd></RmtInf>" if settled.reference and not fits else ""
        amount = self._amount(settled.amount_minor)
        direction = "DBIT" if pays else "CRDT"
        return (
            f"<Ntry><NtryRef>{key}</NtryRef>{amount}<CdtDbtInd>{direction}</CdtDbtInd>"
            f"<Sts><Cd>BOOK</Cd></Sts><BookgDt><DtTm>{utc(settled.settled_us)}</DtTm></BookgDt>"
            f"<AcctSvcrRef>{key}</AcctSvcrRef>"
            f"<BkTxCd><Prtry><Cd>{'REFUND' if refund else 'PAYMENT'}</Cd></Prtry></BkTxCd>"
            f"<NtryDtls><TxDtls><Refs><AcctSvcrRef>{key}</AcctSvcrRef>"
            f"<EndToEndId>{reference if fits else NOT_PROVIDED}</EndToEndId></Refs>"
            f"{amount}<CdtDbtInd>{direction}</CdtDbtInd>{remittance}</TxDtls></NtryDtls></Ntry>\n"
        )

    def end(self) -> str:
        return "</Stmt></BkToCstmrStmt></Document>\n"

    def _balance(self, code: str, amount_minor: int, time_us: int) -> str:
        return (
            f"<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>{self._amount(abs(amount_minor))}"
            f"<CdtDbtInd>{_indicator(amount_minor)}</CdtDbtInd><Dt><DtTm>{utc(time_us)}</DtTm></Dt></Bal>"
        )

    def _summary(self) -> str:
        position = self._position
        net = position.net_minor
        return (
            f"<TxsSummry><TtlNtries><NbOfNtries>{position.count}</NbOfNtries>"
            f"<Sum>{decimal(position.gross_minor, self._currency)}</Sum>"
            f"<TtlNetNtry><Amt>{decimal(abs(net), self._currency)}</Amt>"
            f"<CdtDbtInd>{_indicator(net)}</CdtDbtInd></TtlNetNtry></TtlNtries>"
            f"{self._total('TtlCdtNtries', position.incoming)}{self._total('TtlDbtNtries', position.outgoing)}"
            "</TxsSummry>"
        )

    def _total(self, element: str, tally: Tally) -> str:
        amount = decimal(tally.amount_minor, self._currency)
        return f"<{element}><NbOfNtries>{tally.count}</NbOfNtries><Sum>{amount}</Sum></{element}>"

    def _amount(self, amount_minor: int) -> str:
        return f'<Amt Ccy="{self._currency}">{decimal(amount_minor, self._currency)}</Amt>'


def _indicator(amount_minor: int) -> str:
    return "DBIT" if amount_minor < 0 else "CRDT"


def _text(text: str) -> str:
    """A text without unprintable characters, most of which XML 1.0 (section 2.2) does not allow either."""
    return escape(printable(text))
