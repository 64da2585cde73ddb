"""Routing keys of tokens: adding, changing and finding them. Each is a job of the vault's writer."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, replace
from typing import Final

from hutong_contract.errors import HutongError, Reason
from hutong_contract.secret import Secret
from tokenization import numbers, records, schema
from tokenization.accounts import ATTEMPTS_MAX, read_policy
from tokenization.domain import Domain
from tokenization.key_kinds import RULES, KeyKind, domain_for
from tokenization.lifecycle import Event, State, advance, state_at
from tokenization.purposes import Purposes
from tokenization.records import AccountRow, KeyRow
from tokenization.store import Session
from tokenization.writing import Change, Writes, new_ref

KEYS_MAX: Final = 256
"""Live keys of one token."""
DEVICE_ID_MAX: Final = 64
"""Bytes of UTF-8."""


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A routing key that is asked for."""

    kind: KeyKind
    domain: Domain | None = None
    device_id: str = ""
    assurance_method: str = "00"
    expires_us: int | None = None
    """None: as the token."""
    reference: Secret[str] | None = None
    """Of FACE keys: what the face service gave."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A new routing key. Its number and device key are shown only here."""

    row: KeyRow
    number: Secret[str] | None = None
    device_key: Secret[bytes] | None = None


def number_message(number: str) -> bytes:
    """What the lookup MAC of a device token or barcode number covers."""
    return b"number " + number.encode()


def face_message(reference: str) -> bytes:
    """What the lookup MAC of a face reference covers."""
    return b"face " + reference.encode()


def device_message(key_ref: bytes, device_id: str) -> bytes:
    """What a device key is derived from."""
    return key_ref + device_id.encode()


class RoutingKeys:
    """Jobs on keys. Each takes the writer's session."""

    def __init__(self, purposes: Purposes) -> None:
        self._purposes = purposes
        self._writes = Writes(purposes.row)

    def add(self, session: Session, account: int, request: KeyRequest, change: Change) -> NewKey:
        """Adds a key to an active or suspended token."""
        owner = self._writes.account(session, account)
        _check_owner(owner, change.now_us)
        rule = RULES[request.kind]
        if len(request.device_id.encode()) > DEVICE_ID_MAX or (rule.needs_device and not request.device_id):
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="device_id")
        live = "SELECT record FROM keys WHERE account = ?"
        if len(session.rows(live, (account,))) >= KEYS_MAX:
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="name", limit=f"{KEYS_MAX} keys for each token")
        ref = new_ref(change.now_us, os.urandom)
        number, lookup = self._named(session, request)
        policy = replace(
            read_policy(session, owner.policy), budget=None, domain=domain_for(request.kind, request.domain)
        )
        row = KeyRow(
            id=self._writes.take_ids(session, "keys", 1), ref=ref, lookup=lookup, account=account, version=1,
            kind=request.kind, state=State.ACTIVE, last_four=int(number[-4:]) if number else 0,
            created_us=change.now_us, expires_us=owner.expires_us if request.expires_us is None else request.expires_us,
            policy=self._writes.policy(session, policy), assurance_method=request.assurance_method,
            sealed_number=records.seal_token(self._purposes.token, number, ref) if number else records.NO_SEALED_TOKEN,
            device_id=request.device_id,
        )  # fmt: skip
        session.run_many(schema.insert("keys"), [row.row(self._purposes.row)])
        self._writes.event(session, account, row.id, "key_added", change)
        device_key = None
        if request.kind is KeyKind.DEVICE:
            device_key = Secret(self._purposes.device(device_message(ref, request.device_id)))
        return NewKey(row, Secret(number) if number else None, device_key)

    def _named(self, session: Session, request: KeyRequest) -> tuple[str, bytes | None]:
        """The number and lookup MAC of a new key."""
        if request.kind is KeyKind.FACE:
            reference = request.reference.reveal() if request.reference else ""
            if not 0 < len(reference) <= 256:
                raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="face_reference")
            lookup = self._purposes.lookup(face_message(reference))[: records.REF_BYTES]
            if session.rows("SELECT 1 FROM keys WHERE lookup = ?", (lookup,)):
                raise HutongError(Reason.ERROR_REASON_FACE_ALREADY_ENROLLED)
            return "", lookup
        source = RULES[request.kind].numbers
        if source is None:
            return "", None
        for _ in range(ATTEMPTS_MAX):
            number = numbers.new_token(source, secrets.randbelow)
            lookup = self._purposes.lookup(number_message(number))[: records.REF_BYTES]
            if not session.rows("SELECT 1 FROM keys WHERE lookup = ?", (lookup,)):
                return number, lookup
        raise HutongError(Reason.ERROR_REASON_VAULT_UNAVAILABLE)

    def for_codes(self, session: Session, account: int, device_id: str, change: Change) -> KeyRow:
        """The live key for payment codes of a device ("" for codes reserved online), added where there is none."""
        for columns in session.rows(schema.select("keys", "account = ?"), (account,)):
            row = records.key_from(columns)
            if row.kind == KeyKind.PAYMENT_CODE and row.device_id == device_id and row.state is not State.DELETED:
                _check_owner(self._writes.account(session, account), change.now_us)
                state = state_at(row.state, row.expires_us, change.now_us)
                if state is not State.ACTIVE:
                    raise HutongError(Reason.ERROR_REASON_TOKEN_NOT_ACTIVE, state=state.name.lower())
                return row
        return self.add(session, account, KeyRequest(KeyKind.PAYMENT_CODE, device_id=device_id), change).row

    def change_state(self, session: Session, number: int, event: Event, change: Change) -> KeyRow:
        """Applies a lifecycle event to one key. The token's version grows, so that queued payments notice it."""
        row = self._writes.key(session, number)
        owner = self._writes.account(session, row.account)
        if owner.erased:
            raise HutongError(Reason.ERROR_REASON_ACCOUNT_ERASED)
        state = advance(state_at(row.state, row.expires_us, change.now_us), event)
        lookup = None if state is State.DELETED and row.kind == KeyKind.FACE else row.lookup
        after = replace(row, version=row.version + 1, state=state, lookup=lookup)
        self._write(session, owner, row, after, event.value, change)
        return after

    def update_terms(
        self, session: Session, number: int, change: Change, *, domain: Domain | None, expires_us: int | None
    ) -> KeyRow:
        """Changes a key's domain or expiry; None leaves it. A later expiry brings back an expired key."""
        row = self._writes.key(session, number)
        owner = self._writes.account(session, row.account)
        state = state_at(row.state, row.expires_us, change.now_us)
        if owner.erased or state is State.DELETED:
            raise HutongError(Reason.ERROR_REASON_TOKEN_TRANSITION, state="deleted", change="domain_updated")
        if state is State.EXPIRED and expires_us is not None and expires_us > change.now_us:
            state = advance(state, Event.RENEW)
        policy = read_policy(session, row.policy)
        if domain is not None:
            policy = replace(policy, domain=domain_for(KeyKind(row.kind), domain))
        after = replace(
            row,
            version=row.version + 1,
            state=state,
            policy=self._writes.policy(session, policy),
            expires_us=row.expires_us if expires_us is None else expires_us,
        )
        self._write(session, owner, row, after, "domain_updated", change)
        return after

    def _write(
        self, session: Session, owner: AccountRow, before: KeyRow, after: KeyRow, kind: str, change: Change
    ) -> None:
        self._writes.update_key(session, before, after)
        self._writes.update_account(session, owner, replace(owner, version=owner.version + 1))
        self._writes.event(session, owner.id, before.id, kind, change)


def _check_owner(owner: AccountRow, now_us: int) -> None:
    if owner.erased:
        raise HutongError(Reason.ERROR_REASON_ACCOUNT_ERASED)
    state = state_at(owner.state, owner.expires_us, now_us)
    if state not in (State.ACTIVE, State.SUSPENDED):
        raise HutongError(Reason.ERROR_REASON_TOKEN_NOT_ACTIVE, state=state.name.lower())
