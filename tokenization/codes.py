"""One-time payment codes: handing them out (jobs of the vault's writer), and finding the account of a code (in memory
only).

The chance of a forged code. An online code is one of 10^17 random ones; with n codes live, one guess succeeds with n /
10^17. An offline code has a MAC of 8 digits, and three steps are accepted, so one guess for a known alias succeeds with
3 / 10^8, or 1.5 / 10^7 a day with the five failures that are allowed. Guessing alias and MAC together succeeds with a *
3 / 10^17 for a aliases, and a terminal has 20 guesses in ten minutes.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from hutong_contract import payment_code as code_format
from hutong_contract.errors import HutongError, Reason
from hutong_contract.secret import Secret
from tokenization import failures as limits
from tokenization.accounts import ATTEMPTS_MAX
from tokenization.failures import Failures
from tokenization.index import Index, KeyEntry
from tokenization.interface import KeyUse
from tokenization.lifecycle import State, state_at
from tokenization.purposes import Purposes
from tokenization.records import REF_BYTES
from tokenization.routing_keys import RoutingKeys
from tokenization.store import Session
from tokenization.writing import Change, Writes

STALE_STEPS: Final = 10
"""Steps for which an old offline code is recognised and refused as expired, rather than counted as a guess: five
minutes."""
ALIAS_DAYS_KEPT: Final = 2
"""Days after which an alias is forgotten and may be assigned again."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """An online code."""

    code: Secret[str]
    expires_us: int


@dataclass(frozen=True, slots=True)
class Provisioning:
    """What a wallet needs to show offline codes for a day: the arguments of
    hutong_contract.payment_code.offline_code."""

    alias: str
    day_key: Secret[bytes]
    day: int
    suite: str


def day_key_message(key_ref: bytes, day: int, device_id: str) -> bytes:
    """What a day key is derived from: the account's routing key, the day, the device."""
    return b"day %d " % day + key_ref + device_id.encode()


class CodeIssuer:
    """Jobs that hand out codes. Each takes the writer's session."""

    def __init__(self, purposes: Purposes, keys: RoutingKeys) -> None:
        self._purposes = purposes
        self._keys = keys
        self._writes = Writes(purposes.row)

    def reserve(self, session: Session, account: int, change: Change) -> Reservation:
        """An online code for a token, good for a minute."""
        self._require_active(session, account, change.now_us)
        key = self._keys.for_codes(session, account, "", change)
        for _ in range(ATTEMPTS_MAX):
            code = code_format.online_code(secrets.randbelow)
            lookup = self._purposes.code(code.encode())[:REF_BYTES]
            if not session.rows("SELECT 1 FROM codes WHERE lookup = ?", (lookup,)):
                expires_us = change.now_us + code_format.ONLINE_LIFETIME_US
                self._writes.add(session, "codes", [(lookup, key.id, expires_us)])
                return Reservation(Secret(code), expires_us)
        raise HutongError(Reason.ERROR_REASON_VAULT_UNAVAILABLE)

    def provision(self, session: Session, account: int, device_id: str, day: int, change: Change) -> Provisioning:
        """The alias and day key of a device. Repeating the request returns the same. Available for today and
        tomorrow."""
        today = code_format.day_of(change.now_us)
        if not today <= day <= today + 1:
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="day", today=str(today))
        self._require_active(session, account, change.now_us)
        key = self._keys.for_codes(session, account, device_id, change)
        found = session.rows("SELECT alias FROM aliases WHERE key = ? AND day = ?", (key.id, day))
        alias = found[0][0] if found else self._new_alias(session, key.id, day, account, change)
        day_key = self._purposes.alias_day(day_key_message(key.ref, day, device_id))
        text = f"{alias:0{code_format.ALIAS_DIGITS}d}"
        return Provisioning(text, Secret(day_key), day, self._purposes.suite.name)

    def _new_alias(self, session: Session, key: int, day: int, account: int, change: Change) -> int:
        for _ in range(ATTEMPTS_MAX):
            alias = secrets.randbelow(10**code_format.ALIAS_DIGITS)
            if not session.rows("SELECT 1 FROM aliases WHERE alias = ?", (alias,)):
                self._writes.add(session, "aliases", [(alias, key, day)])
                self._writes.event(session, account, key, "provisioned", change)
                return alias
        raise HutongError(Reason.ERROR_REASON_VAULT_UNAVAILABLE)

    def _require_active(self, session: Session, account: int, now_us: int) -> None:
        row = self._writes.account(session, account)
        if row.erased:
            raise HutongError(Reason.ERROR_REASON_ACCOUNT_ERASED)
        state = state_at(row.state, row.expires_us, now_us)
        if state is not State.ACTIVE:
            raise HutongError(Reason.ERROR_REASON_TOKEN_NOT_ACTIVE, state=state.name.lower())


def purge(session: Session, now_us: int) -> None:
    """Deletes rows that can no longer be used: expired codes, old aliases, old failures."""
    session.run("DELETE FROM codes WHERE expires_us < ?", (now_us - 10 * code_format.ONLINE_LIFETIME_US,))
    session.run("DELETE FROM aliases WHERE day < ?", (code_format.day_of(now_us) - ALIAS_DAYS_KEPT,))
    session.run("DELETE FROM failures WHERE time_us < ?", (now_us - limits.ALIAS_WINDOW_US,))
    session.run(
        "DELETE FROM failures WHERE time_us < ? AND length(subject) > ?",
        (now_us - limits.TERMINAL_WINDOW_US, REF_BYTES),
    )


class CodeReader:
    """Finds the account of a code, in memory only. Counts failures, and keeps them in `failed` for the vault to
    write."""

    def __init__(self, index: Index, purposes: Purposes, failures: Failures) -> None:
        self._index = index
        self._purposes = purposes
        self._failures = failures
        self.failed: list[tuple[bytes, int]] = []

    def read(self, use: KeyUse, now_us: int) -> tuple[KeyEntry, bytes, int]:
        """The routing key of a code, what it spends, and when it was made (microseconds). Raises HutongError:
        CODE_UNKNOWN, CODE_EXPIRED or CODE_LOCKED."""
        code = use.value.reveal()
        if not code_format.is_payment_code(code):
            raise HutongError(Reason.ERROR_REASON_CODE_UNKNOWN)
        named = b"terminal\0%s\0%s" % (use.merchant_id.encode(), use.terminal_id.encode())
        terminal = limits.TERMINAL_MARK + self._purposes.counter(named)[:REF_BYTES]
        if self._failures.locked(terminal, limits.TERMINAL_FAILURES_MAX, limits.TERMINAL_WINDOW_US, now_us):
            raise HutongError(Reason.ERROR_REASON_CODE_LOCKED, subject="terminal")
        found = (self._online if code.startswith(code_format.ONLINE_PREFIX) else self._offline)(code, now_us)
        if found is None:
            self._fail(terminal, now_us)
            raise HutongError(Reason.ERROR_REASON_CODE_UNKNOWN)
        return found

    def _fail(self, subject: bytes, now_us: int) -> None:
        self._failures.add(subject, now_us)
        self.failed.append((subject, now_us))

    def _online(self, code: str, now_us: int) -> tuple[KeyEntry, bytes, int] | None:
        mac = self._purposes.code(code.encode())
        entry = self._index.code(mac)
        if entry is None:
            return None
        if now_us >= entry.expires_us:
            raise HutongError(Reason.ERROR_REASON_CODE_EXPIRED)
        spend = self._purposes.spend(b"online " + mac[:REF_BYTES])[:REF_BYTES]
        return self._index.keys[entry.key], spend, entry.expires_us - code_format.ONLINE_LIFETIME_US

    def _offline(self, code: str, now_us: int) -> tuple[KeyEntry, bytes, int] | None:
        start = len(code_format.OFFLINE_PREFIX)
        split = start + code_format.ALIAS_DIGITS
        entry = self._index.aliases.get(int(code[start:split]))
        if entry is None:
            return None
        subject = self._purposes.counter(b"alias %d %s" % (entry.day, code[start:split].encode()))[:REF_BYTES]
        if self._failures.locked(subject, limits.ALIAS_FAILURES_MAX, limits.ALIAS_WINDOW_US, now_us):
            raise HutongError(Reason.ERROR_REASON_CODE_LOCKED, subject="alias")
        key = self._index.keys[entry.key]
        step = self._matching_step(key, entry.day, int(code[split:]), now_us)
        if step is None:
            self._fail(subject, now_us)
            return None
        # Named by the key and not by the alias: one payment for each account, device and step.
        spend = self._purposes.spend(b"offline %d " % step + key.row.ref)[:REF_BYTES]
        return key, spend, step * code_format.STEP_US

    def _matching_step(self, key: KeyEntry, day: int, shown: int, now_us: int) -> int | None:
        """The accepted step that the digits match. Raises HutongError(CODE_EXPIRED) for a step of the last minutes."""
        suite = self._purposes.suite
        day_key = self._purposes.alias_day(day_key_message(key.row.ref, day, key.row.device_id))
        now_step = code_format.step_of(now_us)
        skew = code_format.SKEW_STEPS
        # Its own step first: most phones' clocks are right.
        behind = range(now_step - 1, now_step - STALE_STEPS - 1, -1)
        ahead = range(now_step + 1, now_step + skew + 1)
        for step in (now_step, *behind, *ahead):
            if code_format.day_of(step * code_format.STEP_US) != day:
                continue
            if code_format.truncate(suite.mac_once(day_key, code_format.step_message(step))) == shown:
                if step < now_step - skew:
                    raise HutongError(Reason.ERROR_REASON_CODE_EXPIRED)
                return int(step)
        if day < code_format.day_of(now_us - skew * code_format.STEP_US):
            raise HutongError(Reason.ERROR_REASON_CODE_EXPIRED)
        return None
