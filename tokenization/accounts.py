"""Accounts and their account-unified tokens: requesting, changing, replacing and erasing them. Each is a job of the
vault's writer."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from hutong_contract.errors import HutongError, Reason
from hutong_contract.secret import Secret
from tokenization import numbers, records, schema
from tokenization.domain import Budget, Domain, Policy
from tokenization.interface import Account
from tokenization.key_kinds import KeyKind
from tokenization.keyring import KekStore
from tokenization.lifecycle import Event, State, advance, state_at
from tokenization.purposes import Purposes
from tokenization.records import AccountRow
from tokenization.store import Session
from tokenization.suite import KEY_BYTES, SealBrokenError
from tokenization.writing import Change, Writes

LIFETIME_US: Final = 5 * 365 * 86_400_000_000
"""Lifetime of a token whose requestor names none, in microseconds."""
REQUESTORS_MAX: Final = 16
"""Most requestors that share one token."""
ATTEMPTS_MAX: Final = 100
"""Most random numbers tried for a new token. With a range that is one millionth full, a second try is already rare."""
_KEYS_OF_ACCOUNT: Final = schema.select("keys", "account = ?")


@dataclass(frozen=True, slots=True)
class Enrolment:
    """An account that gets a token, and the token's terms."""

    account: Account
    policy: Policy
    expires_us: int
    state: State = State.ACTIVE


@dataclass(frozen=True, slots=True)
class Registration:
    """The answer to an enrolment."""

    token: Secret[str]
    token_ref: bytes
    par: str
    created: bool
    """False where the account had this token already."""


class Accounts:
    """Jobs on accounts. Each takes the writer's session."""

    def __init__(self, purposes: Purposes, keks: KekStore) -> None:
        self._purposes = purposes
        self._keks = keks
        self._writes = Writes(purposes.row)

    def register(
        self, session: Session, enrolments: Sequence[Enrolment], change: Change, *, replacing: bool = False
    ) -> list[Registration]:
        """Returns the token of each account, in order: the existing one, or a new one. With `replacing`, the accounts
        are known already, so their numbers are not checked again. Raises HutongError(FIELD_INVALID)."""
        blinds = [self._blind(item.account) for item in enrolments]
        known: dict[bytes, Registration] = {}
        fresh: list[tuple[bytes, Enrolment]] = []
        for blind, item in zip(blinds, enrolments, strict=True):
            if blind in known:
                continue
            found = session.rows("SELECT id FROM accounts WHERE blind = ?", (blind,))
            if found:
                known[blind] = self._join(session, found[0][0], item, change)
            else:
                if not replacing and numbers.is_mistyped(item.account.number.reveal()):
                    raise _wrong_number()
                known[blind] = _PLACEHOLDER
                fresh.append((blind, item))
        if fresh:
            known.update(self._create(session, fresh, change.now_us))
        first_seen: set[bytes] = set()
        answers = []
        for blind in blinds:
            answer = known[blind]
            answers.append(replace(answer, created=answer.created and blind not in first_seen))
            first_seen.add(blind)
        return answers

    def _blind(self, account: Account) -> bytes:
        number = account.number.reveal()
        if not numbers.is_account_number(number):
            raise _wrong_number()
        if not 0 < len(account.issuer_id) <= 64:
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="issuer_id")
        return self._purposes.blind(account.issuer_id.encode() + b"\0" + number.encode())[: records.REF_BYTES]

    def _join(self, session: Session, number: int, item: Enrolment, change: Change) -> Registration:
        """Adds a requestor to an existing token, whose terms stay as they are."""
        row = self._writes.account(session, number)
        policy = read_policy(session, row.policy)
        new = [trid for trid in item.policy.requestors if trid not in policy.requestors]
        if policy.requestors and new:
            if len(policy.requestors) + len(new) > REQUESTORS_MAX:
                raise HutongError(Reason.ERROR_REASON_REQUESTOR_NOT_ALLOWED, requestor_id=change.requestor)
            joined = replace(policy, requestors=(*policy.requestors, *new))
            after = replace(row, version=row.version + 1, policy=self._writes.policy(session, joined))
            self._writes.update_account(session, row, after)
            self._writes.event(session, row.id, 0, "requestor_added", change)
        return Registration(self.token_of(row), row.ref, row.par, created=False)

    def active_kek(self, session: Session) -> int:
        """The KEK version that wraps new keys, read in this transaction, because another process may have rotated."""
        version: int = session.rows("SELECT value FROM meta WHERE name = 'active_kek'")[0][0]
        if version != self._keks.active():
            self._keks.reload()
        return version

    def _create(
        self, session: Session, fresh: Sequence[tuple[bytes, Enrolment]], now_us: int
    ) -> dict[bytes, Registration]:
        kek = self.active_kek(session)
        first = self._writes.take_ids(session, "accounts", len(fresh))
        policies: dict[Policy, int] = {}
        made: dict[bytes, Registration] = {}
        rows = []
        taken: set[bytes] = set()
        for number, (blind, item) in enumerate(fresh, first):
            policy = policies.get(item.policy)
            if policy is None:
                policy = policies[item.policy] = self._writes.policy(session, item.policy)
            token, ref = self._new_token(session, taken)
            row = self._row(number, ref, blind, kek, item, token, policy, now_us)
            rows.append(row.row(self._purposes.row))
            made[blind] = Registration(Secret(token), ref, row.par, created=True)
        session.run_many(schema.insert("accounts"), rows)
        return made

    def _new_token(self, session: Session, taken: set[bytes]) -> tuple[str, bytes]:
        for _ in range(ATTEMPTS_MAX):
            token = numbers.new_token(numbers.ACCOUNT_RANGE, secrets.randbelow)
            ref = self._purposes.reference(token.encode())[: records.REF_BYTES]
            if ref not in taken and not session.rows("SELECT 1 FROM accounts WHERE ref = ?", (ref,)):
                taken.add(ref)
                return token, ref
        raise HutongError(Reason.ERROR_REASON_VAULT_UNAVAILABLE)

    def _row(
        self, number: int, ref: bytes, blind: bytes, kek: int, item: Enrolment, token: str, policy: int, now_us: int
    ) -> AccountRow:
        key = os.urandom(KEY_BYTES)
        account = item.account
        plain = account.number.reveal()
        if account.attributes:
            plain += "\n" + json.dumps(account.attributes)
        return AccountRow(
            id=number, ref=ref, blind=blind, version=1, kek=kek, state=item.state, erased=False,
            last_four=int(token[-4:]), created_us=now_us, expires_us=item.expires_us, policy=policy,
            par=numbers.par_of(self._purposes.par(account.number.reveal().encode())),
            sealed_token=records.seal_token(self._purposes.token, token, ref),
            wrapped_key=self._keks.wrap(kek, key, records.key_aad(ref, kek)),
            sealed_account=self._purposes.suite.cipher(key).seal(plain.encode(), records.account_aad(ref)),
        )  # fmt: skip

    def token_of(self, row: AccountRow) -> Secret[str]:
        """The token's number. Raises HutongError(ACCOUNT_ERASED)."""
        if row.erased:
            raise HutongError(Reason.ERROR_REASON_ACCOUNT_ERASED)
        return Secret(records.open_token(self._purposes.token, row.sealed_token, row.ref))

    def account_of(self, row: AccountRow) -> Secret[str]:
        """The account's number. Raises HutongError: ACCOUNT_ERASED; VAULT_UNAVAILABLE where its key does not open."""
        if row.erased:
            raise HutongError(Reason.ERROR_REASON_ACCOUNT_ERASED)
        if row.kek > self._keks.active():
            self._keks.reload()  # Another process rotated.
        try:
            key = self._keks.unwrap(row.kek, row.wrapped_key, records.key_aad(row.ref, row.kek))
            plain = self._purposes.suite.cipher(key).open(row.sealed_account, records.account_aad(row.ref))
        except SealBrokenError:
            raise HutongError(Reason.ERROR_REASON_VAULT_UNAVAILABLE) from None
        return Secret(plain.decode().partition("\n")[0])

    def change_state(self, session: Session, number: int, event: Event, change: Change) -> AccountRow:
        """Applies a lifecycle event to a token. A token that reaches a final state takes its keys with it."""
        row = self._writes.account(session, number)
        if row.erased:
            raise HutongError(Reason.ERROR_REASON_ACCOUNT_ERASED)
        state = advance(state_at(row.state, row.expires_us, change.now_us), event)
        ends = state in (State.DELETED, State.REPLACED)
        after = replace(row, version=row.version + 1, state=state, blind=None if ends else row.blind)
        self._writes.update_account(session, row, after)
        if ends:
            self._end_keys(session, number, change)
        self._writes.event(session, number, 0, event.value, change)
        return after

    def expire(self, session: Session, number: int, change: Change) -> None:
        """Records that a token has expired; does nothing if it has not, or no longer is."""
        row = self._writes.account(session, number)
        if not row.erased and row.state is not State.EXPIRED:
            if state_at(row.state, row.expires_us, change.now_us) is not State.EXPIRED:
                return
            after = replace(row, version=row.version + 1, state=State.EXPIRED)
            self._writes.update_account(session, row, after)
            self._writes.event(session, number, 0, Event.EXPIRE.value, change)

    def _end_keys(self, session: Session, account: int, change: Change) -> None:
        for columns in session.rows(_KEYS_OF_ACCOUNT, (account,)):
            key = records.key_from(columns)
            if key.state is not State.DELETED:
                # A face may be bound to another token later; a number is never given out again.
                lookup = None if key.kind == KeyKind.FACE else key.lookup
                after = replace(key, version=key.version + 1, state=State.DELETED, lookup=lookup)
                self._writes.update_key(session, key, after)
                self._writes.event(session, account, key.id, Event.DELETE.value, change)

    def replace_token(self, session: Session, number: int, change: Change) -> Registration:
        """Makes a new token for the same account, on the same terms; the old token and its keys end."""
        old = self._writes.account(session, number)
        plain = self.account_of(old)
        policy = read_policy(session, old.policy)
        self.change_state(session, number, Event.REPLACE, change)
        account = Account(policy.issuer_id, plain)
        enrolment = Enrolment(account, policy, max(old.expires_us, change.now_us + LIFETIME_US))
        return self.register(session, [enrolment], change, replacing=True)[0]

    def update_terms(
        self,
        session: Session,
        number: int,
        change: Change,
        *,
        domain: Domain | None,
        budget: Budget | None,
        expires_us: int | None,
    ) -> AccountRow:
        """Changes a token's domain, budget or expiry; None leaves it. A later expiry brings back an expired token."""
        row = self._writes.account(session, number)
        if row.erased:
            raise HutongError(Reason.ERROR_REASON_ACCOUNT_ERASED)
        state = state_at(row.state, row.expires_us, change.now_us)
        if state in (State.DELETED, State.REPLACED):
            raise HutongError(Reason.ERROR_REASON_TOKEN_TRANSITION, state=state.name.lower(), change="domain_updated")
        if state is State.EXPIRED and expires_us is not None and expires_us > change.now_us:
            state = advance(state, Event.RENEW)
        policy = read_policy(session, row.policy)
        policy = replace(policy, domain=domain or policy.domain, budget=budget or policy.budget)
        after = replace(
            row,
            version=row.version + 1,
            state=state,
            policy=self._writes.policy(session, policy),
            expires_us=row.expires_us if expires_us is None else expires_us,
        )
        self._writes.update_account(session, row, after)
        self._writes.event(session, number, 0, "domain_updated", change)
        return after

    def erase(self, session: Session, number: int, change: Change) -> AccountRow:
        """Destroys the account's data key, its sealed number and token, and its keys. Cannot be undone."""
        row = self._writes.account(session, number)
        if row.erased:
            raise HutongError(Reason.ERROR_REASON_ACCOUNT_ERASED)
        after = records.erased(row)
        self._writes.update_account(session, row, after)
        self._end_keys(session, number, change)
        self._writes.event(session, number, 0, "erased", change)
        return after


_PLACEHOLDER: Final = Registration(Secret(""), b"", "", created=True)


def read_policy(session: Session, number: int) -> Policy:
    """A policy by its id."""
    return Policy.decode(session.rows("SELECT record FROM policies WHERE id = ?", (number,))[0][0])


def _wrong_number() -> HutongError:
    return HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="account_number", allowed=numbers.ACCOUNT_RULE)
