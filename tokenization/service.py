"""The token service in this process: everything that its gRPC face and the gateway ask for.

`by` names the requestor (TRID) that asks; its role and its tokens decide what it may do. An empty `by` is the process
itself, the composition root, which may do everything. Names of tokens are a Secret (the number) or 16 bytes (the
reference). Every refusal is a contract.errors.HutongError.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from contract import transit
from contract.errors import HutongError, Reason
from contract.payment_code import day_of
from contract.secret import Secret
from tokenization import codes, numbers, schema
from tokenization.accounts import LIFETIME_US, Accounts, Enrolment, Registration
from tokenization.codes import CodeIssuer, CodeReader, Provisioning, Reservation
from tokenization.domain import Budget, Domain, Policy, check_assurance, check_budget, check_domain
from tokenization.interface import Account, KeyUse, Resolution
from tokenization.key_kinds import KeyKind
from tokenization.keyring import KdfCost, KekStore
from tokenization.lifecycle import Event, State
from tokenization.opening import OpenVault, open_folder, open_postgres
from tokenization.records import REF_BYTES, KeyRow
from tokenization.requestors import Action, Requestor, check_action
from tokenization.resolver import Resolver
from tokenization.rotation import KeyStatus, Rotation
from tokenization.routing_keys import KeyRequest, NewKey, RoutingKeys
from tokenization.store import Session, StoreError
from tokenization.views import HistoryEvent, KeyView, TokenView, key_view, token_view
from tokenization.writing import Change, Writes, system_clock_us

TokenName = Secret[str] | bytes
REGISTER_MAX: Final = 2_000
"""Accounts in one transaction; `register_accounts` splits longer lists."""
HISTORY_MAX: Final = 1_000
HOUSEKEEPING_US: Final = 600_000_000
"""How often expired tokens are written down and old codes deleted."""
EXPIRED_PER_ROUND: Final = 1_000
TRANSIT_LIFETIME_US: Final = 7 * 86_400_000_000
TEXT_MAX: Final = 64


class TokenService:
    """One vault and all that is done with it. Thread-safe. Implements interface.TokenResolver."""

    def __init__(self, opened: OpenVault, clock_us: Callable[[], int] = system_clock_us) -> None:
        vault = opened.vault
        self._opened = opened
        self._clock_us = clock_us
        self._vault = vault
        self._accounts = Accounts(vault.purposes, vault.keks)
        self._keys = RoutingKeys(vault.purposes)
        self._issuer = CodeIssuer(vault.purposes, self._keys)
        self._reader = CodeReader(vault.index, vault.purposes, vault.failures)
        self._resolver = Resolver(vault.index, vault.purposes, self._reader)
        self._resolving = threading.Lock()
        self._next_housekeeping_us = 0
        self.rotation = Rotation(vault, clock_us)
        self.rotation.resume()

    def close(self) -> None:
        """Stops a rotation (it goes on at the next start), finishes what is queued, seals the file."""
        self.rotation.stop()
        self._opened.close()

    def __len__(self) -> int:
        return len(self._vault.index)

    @property
    def suite(self) -> str:
        """The crypto suite's name."""
        return self._vault.purposes.suite.name

    @property
    def transit_public_key(self) -> ec.EllipticCurvePublicKey:
        """What gates verify transit certificates with."""
        return self._vault.purposes.transit_public

    # What the gateway asks.

    def resolve(self, uses: Sequence[KeyUse], now_us: int) -> list[Resolution | HutongError]:
        """Where keys lead; see interface.TokenResolver."""
        with self._resolving:
            try:
                self._vault.refresh(now_us)
            except StoreError:
                return [HutongError(Reason.ERROR_REASON_VAULT_UNAVAILABLE) for _ in uses]
            answers = self._resolver.resolve(uses, now_us)
            failed, self._reader.failed = self._reader.failed, []
        if failed:
            self._keep_failures(failed)
        if now_us >= self._next_housekeeping_us:
            self._next_housekeeping_us = now_us + HOUSEKEEPING_US
            self._quietly(lambda session: self._housekeeping(session, now_us))
        return answers

    def resolve_now(self, uses: Sequence[KeyUse]) -> list[Resolution | HutongError]:
        """`resolve` by the service's own clock, for callers that have none to be trusted."""
        return self.resolve(uses, self._clock_us())

    def still_valid(self, resolutions: Sequence[Resolution]) -> list[bool]:
        """Whether nothing that matters was suspended or deleted since; see interface.TokenResolver."""
        try:
            self._vault.refresh(self._clock_us())
        except StoreError:
            return [False for _ in resolutions]
        return [self._resolver.still_valid(resolution) for resolution in resolutions]

    # Requestors.

    def register_requestor(self, requestor: Requestor, secret: Secret[str] | None = None) -> None:
        """Adds a requestor, or changes one. With a secret, gRPC calls in its name must carry it."""
        if not numbers.is_requestor_id(requestor.trid):
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="requestor_id")
        mac = self._secret_mac(requestor.trid, secret.reveal()) if secret else ""
        full = Requestor(requestor.trid, requestor.name, requestor.role, requestor.issuer_id, mac)
        self._vault.write(lambda session: Writes(self._vault.purposes.row).requestor(session, full))

    def authenticate(self, trid: str, secret: str) -> Requestor:
        """The requestor that a call claims to be. Raises HutongError(REQUESTOR_NOT_ALLOWED)."""
        requestor = self._vault.index.requestors.get(trid)
        if requestor is None or (requestor.secret_mac and self._secret_mac(trid, secret) != requestor.secret_mac):
            raise HutongError(Reason.ERROR_REASON_REQUESTOR_NOT_ALLOWED, action="identify")
        return requestor

    def permit(self, by: str, action: Action, policy: Policy | None = None) -> None:
        """Whether a requestor may do something at all. Raises HutongError(REQUESTOR_NOT_ALLOWED)."""
        if by:
            requestor = self._vault.index.requestors.get(by)
            if requestor is None:
                raise HutongError(Reason.ERROR_REASON_REQUESTOR_NOT_ALLOWED, action=action.value)
            check_action(requestor, action, policy)

    def _secret_mac(self, trid: str, secret: str) -> str:
        # MACs are compared, not secrets: how long that takes tells nothing about the secret.
        return self._vault.purposes.requestor(trid.encode() + b" " + secret.encode()).hex()

    # Tokens.

    def register_accounts(
        self,
        accounts: Iterable[Account],
        *,
        by: str = "",
        domain: Domain | None = None,
        budget: Budget | None = None,
        assurance_method: str = "00",
        expires_us: int | None = None,
        active: bool = True,
    ) -> list[Registration]:
        """Gives every account its account-unified token, in order; an account that has one keeps it and its terms."""
        now_us = self._clock_us()
        self._check_terms(domain, budget, expires_us)
        if domain is not None and domain.cryptogram_required:
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="domain.cryptogram_required")
        method = check_assurance(assurance_method)
        until_us = expires_us or now_us + LIFETIME_US
        state = State.ACTIVE if active else State.REQUESTED
        change = Change(by, now_us)
        enrolments: list[Enrolment] = []
        policies: dict[str, Policy] = {}
        for account in accounts:
            policy = policies.get(account.issuer_id)
            if policy is None:
                policy = Policy(account.issuer_id, (by,) if by else (), domain or Policy().domain, budget, method)
                self.permit(by, Action.REQUEST, policy)
                policies[account.issuer_id] = policy
            enrolments.append(Enrolment(account, policy, until_us, state))
        answers: list[Registration] = []
        for start in range(0, len(enrolments), REGISTER_MAX):
            part = enrolments[start : start + REGISTER_MAX]
            answers += self._vault.write(lambda session, part=part: self._accounts.register(session, part, change))  # type: ignore[misc]
        return answers

    def register_account(self, account: Account, *, by: str = "") -> Registration:
        """`register_accounts` for one account with no conditions."""
        return self.register_accounts([account], by=by)[0]

    def show(self, name: TokenName, *, by: str = "") -> tuple[TokenView, list[KeyView]]:
        """A token and its keys, oldest first."""
        slot = self._locate(name, by, Action.SHOW)
        now_us = self._clock_us()
        index = self._vault.index
        row = self._vault.read(lambda session: Writes(self._vault.purposes.row).account(session, slot + 1))
        keys = [key_view(key.row, key.policy, now_us) for key in index.keys_of(slot)]
        return token_view(row, index.policies[row.policy], now_us), keys

    def view_of_key(self, row: KeyRow) -> KeyView:
        """What may be shown of a key that was just made."""
        return key_view(row, self._vault.index.policies[row.policy], self._clock_us())

    def reference_of(self, token: Secret[str]) -> bytes:
        """The 16 bytes that name a token."""
        return self._vault.purposes.reference(token.reveal().encode())[:REF_BYTES]

    def change_state(
        self, name: TokenName, event: Event, *, key_ref: bytes = b"", by: str = "", reason: str = ""
    ) -> None:
        """Moves a token (with all its keys), or one key, along the lifecycle's table; durable when this returns."""
        slot = self._locate(name, by, Action.CHANGE_STATE)
        change = self._change(by, reason)
        if not key_ref or key_ref == self._vault.index.ref_at(slot):
            self._vault.write(lambda session: self._accounts.change_state(session, slot + 1, event, change))
            return
        number = self._key_of(slot, key_ref)
        self._vault.write(lambda session: self._keys.change_state(session, number, event, change))

    def replace_token(self, name: TokenName, *, by: str = "", reason: str = "") -> Registration:
        """A new token for the same account; the old one and its keys never pay again."""
        slot = self._locate(name, by, Action.REPLACE)
        change = self._change(by, reason)
        return self._vault.write(lambda session: self._accounts.replace_token(session, slot + 1, change))

    def update_terms(
        self,
        name: TokenName,
        *,
        key_ref: bytes = b"",
        domain: Domain | None = None,
        budget: Budget | None = None,
        expires_us: int | None = None,
        by: str = "",
    ) -> None:
        """Changes domain, budget (of tokens only) or expiry; None leaves it."""
        slot = self._locate(name, by, Action.UPDATE_DOMAIN)
        change = self._change(by, "")
        self._check_terms(domain, budget, expires_us)
        if not key_ref:
            if domain is not None and domain.cryptogram_required:
                raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="domain.cryptogram_required")
            self._vault.write(
                lambda session: self._accounts.update_terms(
                    session, slot + 1, change, domain=domain, budget=budget, expires_us=expires_us
                )
            )
            return
        if budget is not None:
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="budget")
        number = self._key_of(slot, key_ref)
        self._vault.write(
            lambda session: self._keys.update_terms(session, number, change, domain=domain, expires_us=expires_us)
        )

    def erase(self, name: TokenName, *, by: str = "", reason: str = "") -> None:
        """Destroys the account's data key and everything that identifies it. Cannot be undone."""
        slot = self._locate(name, by, Action.ERASE)
        change = self._change(by, reason)
        self._vault.write(lambda session: self._accounts.erase(session, slot + 1, change))
        self._vault.store.scrub()

    def detokenize(self, name: TokenName, *, by: str = "") -> Secret[str]:
        """The account number behind a token; who asked is kept in the history."""
        slot = self._locate(name, by, Action.DETOKENIZE)
        change = self._change(by, "")
        writes = Writes(self._vault.purposes.row)

        def job(session: Session) -> Secret[str]:
            number = self._accounts.account_of(writes.account(session, slot + 1))
            writes.event(session, slot + 1, 0, "detokenized", change)
            return number

        return self._vault.write(job)

    # Routing keys.

    def add_key(
        self,
        name: TokenName,
        kind: KeyKind,
        domain: Domain | None = None,
        *,
        device_id: str = "",
        assurance_method: str = "00",
        expires_us: int | None = None,
        reference: Secret[str] | None = None,
        by: str = "",
    ) -> NewKey:
        """Adds a routing key. Its number and device key are in the answer and nowhere else."""
        slot = self._locate(name, by, Action.CREATE_KEY)
        self._check_terms(domain, None, expires_us)
        method = check_assurance(assurance_method)
        request = KeyRequest(kind, domain, device_id, method, expires_us, reference)
        change = self._change(by, "")
        return self._vault.write(lambda session: self._keys.add(session, slot + 1, request, change))

    def bind_face(self, name: TokenName, reference: Secret[str], domain: Domain | None = None) -> NewKey:
        """Lets a face lead to a token: `reference` is what the face service gave."""
        return self.add_key(name, KeyKind.FACE, domain, reference=reference)

    def reserve_code(self, name: TokenName, *, by: str = "") -> Reservation:
        """An online payment code, good for a minute and one payment."""
        slot = self._locate(name, by, Action.RESERVE_CODE)
        change = self._change(by, "")
        return self._vault.write(lambda session: self._issuer.reserve(session, slot + 1, change))

    def provision(self, name: TokenName, device_id: str, day: int | None = None, *, by: str = "") -> Provisioning:
        """Alias and day key for a day's offline codes (days since 1970-01-01 UTC; None: today)."""
        return self.provision_many([name], device_id, day, by=by)[0]

    def provision_many(
        self, names: Sequence[TokenName], device_id: str, day: int | None = None, *, by: str = ""
    ) -> list[Provisioning]:
        """`provision` for several tokens in one transaction."""
        if not 0 < len(device_id) <= TEXT_MAX:
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="device_id")
        slots = [self._locate(name, by, Action.PROVISION) for name in names]
        change = self._change(by, "")
        wanted = day_of(change.now_us) if day is None else day
        return self._vault.write(
            lambda session: [self._issuer.provision(session, slot + 1, device_id, wanted, change) for slot in slots]
        )

    def issue_transit(
        self,
        name: TokenName,
        public_key: bytes,
        fare_max_minor: int,
        currency: str,
        *,
        expires_us: int | None = None,
        by: str = "",
    ) -> tuple[NewKey, bytes]:
        """A transit credential and its signed certificate for a rider's public key (P-256, 33 bytes)."""
        slot = self._locate(name, by, Action.ISSUE_TRANSIT)
        now_us = self._clock_us()
        until_us = expires_us or now_us + TRANSIT_LIFETIME_US
        domain = Domain(currency=currency, amount_max_minor=fare_max_minor)
        self._check_terms(domain, None, until_us)
        _check_point(public_key)
        if not 0 < fare_max_minor < 2**32 or not currency:
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="fare_max_minor")
        purposes = self._vault.purposes
        request = KeyRequest(KeyKind.TRANSIT, domain, expires_us=until_us + transit.WINDOW_US)
        change = Change(by, now_us)
        made = self._vault.write(lambda session: self._keys.add(session, slot + 1, request, change))
        # Phones whose clocks are behind may use it at once.
        begins_s = (now_us - transit.WINDOW_US) // 1_000_000
        certificate = transit.Certificate(
            purposes.transit_key_id, made.row.ref, public_key, begins_s, until_us // 1_000_000,
            fare_max_minor, currency,
        )  # fmt: skip
        return made, transit.sign_certificate(certificate, purposes.transit)

    # History.

    def history(self, name: TokenName, *, after: int = 0, limit: int = HISTORY_MAX, by: str = "") -> list[HistoryEvent]:
        """What happened to a token and its keys, oldest first."""
        slot = self._locate(name, by, Action.SHOW)
        condition = "account = ? AND id > ? ORDER BY id LIMIT ?"
        return self._events(condition, (slot + 1, after, min(limit, HISTORY_MAX)))

    def events(self, after: int, limit: int = HISTORY_MAX, *, by: str = "") -> tuple[list[HistoryEvent], int]:
        """Changes of all tokens that a requestor may see, in order, and the sequence to go on from."""
        self.permit(by, Action.SHOW)
        try:
            self._vault.refresh(self._clock_us())
        except StoreError:
            raise HutongError(Reason.ERROR_REASON_VAULT_UNAVAILABLE) from None
        found = self._events("id > ? AND account > 0 ORDER BY id LIMIT ?", (after, min(limit, HISTORY_MAX)))
        last = found[-1].sequence if found else after
        return [event for event in found if self._may_see(by, event.token_ref)], last

    def _may_see(self, by: str, token_ref: bytes) -> bool:
        slot = self._vault.index.slot_of(token_ref)
        if slot is None:
            return False
        try:
            self.permit(by, Action.SHOW, self._policy_at(slot))
        except HutongError:
            return False
        return True

    def _events(self, condition: str, parameters: tuple[int, ...]) -> list[HistoryEvent]:
        rows = self._vault.read(lambda session: session.rows(schema.select("events", condition), parameters))
        index = self._vault.index
        return [
            HistoryEvent(
                sequence, time_us, index.ref_at(account - 1), index.keys[key].row.ref if key else b"", kind, requestor,
                reason,
            )
            for sequence, account, key, time_us, kind, requestor, reason, _ in rows
            if not key or key in index.keys
        ]  # fmt: skip

    # Keys of the vault.

    def rotate_keys(self, *, by: str = "") -> KeyStatus:
        """Starts a rotation of the KEK, which goes on in the background."""
        self.permit(by, Action.ROTATE_KEYS)
        self.rotation.begin(self._change(by, ""))
        return self.rotation.status()

    def key_status(self, *, by: str = "") -> KeyStatus:
        """The KEK's versions, and what a rotation has left to do."""
        self.permit(by, Action.ROTATE_KEYS)
        return self.rotation.status()

    # Parts.

    def _change(self, by: str, reason: str) -> Change:
        if len(reason) > TEXT_MAX:
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="reason")
        return Change(by, self._clock_us(), reason)

    def _policy_at(self, slot: int) -> Policy:
        return self._vault.index.policies[self._vault.index.account_policies[slot]]

    def _locate(self, name: TokenName, by: str, action: Action) -> int:
        """The account's slot. Raises HutongError: TOKEN_UNKNOWN, TOKEN_MALFORMED, REQUESTOR_NOT_ALLOWED."""
        try:
            self._vault.refresh(self._clock_us())
        except StoreError:
            raise HutongError(Reason.ERROR_REASON_VAULT_UNAVAILABLE) from None
        if isinstance(name, bytes):
            slot = self._vault.index.slot_of(name) if len(name) == REF_BYTES else None
        else:
            number = name.reveal()
            if not numbers.is_token(number):
                raise HutongError(Reason.ERROR_REASON_TOKEN_MALFORMED)
            slot = self._vault.index.slot_of(self._vault.purposes.reference(number.encode()))
        if slot is None:
            raise HutongError(Reason.ERROR_REASON_TOKEN_UNKNOWN)
        self.permit(by, action, self._policy_at(slot))
        return slot

    def _key_of(self, slot: int, key_ref: bytes) -> int:
        key = self._vault.index.key_by_ref(key_ref)
        if key is None or key.slot != slot:
            raise HutongError(Reason.ERROR_REASON_TOKEN_UNKNOWN, of="key")
        return key.row.id

    def _check_terms(self, domain: Domain | None, budget: Budget | None, expires_us: int | None) -> None:
        if domain is not None:
            check_domain(domain)
        if budget is not None:
            check_budget(budget)
        if expires_us is not None and not 0 < expires_us < 2**62:
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="expire_time")

    def _keep_failures(self, failed: list[tuple[bytes, int]]) -> None:
        writes = Writes(self._vault.purposes.row)
        self._quietly(lambda session: writes.add(session, "failures", failed))

    def _quietly(self, job: Callable[[Session], object]) -> None:
        """Queues a job that nobody waits for: memory has the facts already, and the next round repeats it."""
        try:
            self._vault.submit(job)
        except HutongError:
            return

    def _housekeeping(self, session: Session, now_us: int) -> None:
        codes.purge(session, now_us)
        index = self._vault.index
        index.forget_aliases(day_of(now_us) - codes.ALIAS_DAYS_KEPT)
        for slot in index.expired(now_us)[:EXPIRED_PER_ROUND]:
            self._accounts.expire(session, slot + 1, Change("", now_us))


def _check_point(public_key: bytes) -> None:
    try:
        if len(public_key) != transit.PUBLIC_KEY_BYTES:
            raise ValueError
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key)
    except ValueError:
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="public_key") from None


def open_service(
    folder: Path,
    passphrase: Secret[str] | None = None,
    *,
    suite: str | None = None,
    clock_us: Callable[[], int] = system_clock_us,
    cost: KdfCost | None = None,
    keks: KekStore | None = None,
) -> TokenService:
    """Opens the vault in a folder; creates it where there is none.

    `suite` is "international" (the default of a new vault) or "sm". Without a passphrase HUTONG_PASSPHRASE is used, or
    the folder's own file (see `passphrase`). `keks` replaces the key file, by a hardware module's keys for example.
    Raises errors.VaultError where anything is wrong; then nothing was changed.
    """
    return TokenService(open_folder(folder, passphrase, suite, clock_us, cost or KdfCost(), keks), clock_us)


def open_service_on_postgres(
    conninfo: str,
    folder: Path,
    passphrase: Secret[str] | None = None,
    *,
    suite: str | None = None,
    clock_us: Callable[[], int] = system_clock_us,
    cost: KdfCost | None = None,
    keks: KekStore | None = None,
) -> TokenService:
    """`open_service`, with the rows in a PostgreSQL database (`conninfo`: a libpq connection string or URI)."""
    return TokenService(open_postgres(conninfo, folder, passphrase, suite, clock_us, cost or KdfCost(), keks), clock_us)
