"""The common part of all requests to the token service: who asks, for which token, and what the history records."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from hutong_contract.errors import HutongError, Reason
from hutong_contract.limits import HISTORY_PAGE_MAX
from hutong_contract.secret import Secret
from tokenization import numbers, schema
from tokenization.accounts import Accounts
from tokenization.codes import CodeIssuer
from tokenization.domain import Budget, Domain, Policy, check_budget, check_domain
from tokenization.opening import OpenVault
from tokenization.records import REF_BYTES
from tokenization.requestors import Action, Requestor, check_action
from tokenization.routing_keys import RoutingKeys
from tokenization.store import StoreError
from tokenization.views import HistoryEvent
from tokenization.writing import Change, Writes, system_clock_us

TokenName = Secret[str] | bytes
TEXT_MAX: Final = 64
ISSUERS_NAMED: Final = 8
"""Most issuers named in a refusal."""


class Desk:
    """A vault, the jobs on it, and the checks before each job."""

    def __init__(self, opened: OpenVault, clock_us: Callable[[], int] = system_clock_us) -> None:
        vault = opened.vault
        self._opened = opened
        self._clock_us = clock_us
        self._vault = vault
        self._accounts = Accounts(vault.purposes, vault.keks)
        self._keys = RoutingKeys(vault.purposes)
        self._issuer = CodeIssuer(vault.purposes, self._keys)
        self._issuers: frozenset[str] | None = None

    def know_issuers(self, issuers: Iterable[str]) -> None:
        """Restricts token requests to accounts at these issuers; before the first call any issuer is accepted. Existing
        tokens are not affected."""
        self._issuers = frozenset(issuers)

    def __len__(self) -> int:
        return len(self._vault.index)

    @property
    def suite(self) -> str:
        """The crypto suite's name."""
        return self._vault.purposes.suite.name

    def register_requestor(self, requestor: Requestor, secret: Secret[str] | None = None) -> None:
        """Adds a requestor, or changes one. With a secret, gRPC calls in its name must carry that secret."""
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

    def history(
        self, name: TokenName, *, after: int = 0, limit: int = HISTORY_PAGE_MAX, by: str = ""
    ) -> list[HistoryEvent]:
        """The history of a token and its keys, oldest first."""
        slot = self._locate(name, by, Action.SHOW)
        condition = "account = ? AND id > ? ORDER BY id LIMIT ?"
        return self._events(condition, (slot + 1, after, min(limit, HISTORY_PAGE_MAX)))

    def events(self, after: int, limit: int = HISTORY_PAGE_MAX, *, by: str = "") -> tuple[list[HistoryEvent], int]:
        """Events of all tokens that a requestor may see, in order, and the sequence number to continue from."""
        self.permit(by, Action.SHOW)
        try:
            self._vault.refresh(self._clock_us())
        except StoreError:
            raise HutongError(Reason.ERROR_REASON_VAULT_UNAVAILABLE) from None
        found = self._events("id > ? AND account > 0 ORDER BY id LIMIT ?", (after, min(limit, HISTORY_PAGE_MAX)))
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

    def reference_of(self, token: Secret[str]) -> bytes:
        """The 16 bytes that name a token."""
        return self._vault.purposes.reference(token.reveal().encode())[:REF_BYTES]

    def _change(self, by: str, reason: str) -> Change:
        if len(reason) > TEXT_MAX:
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="reason")
        return Change(by, self._clock_us(), reason)

    def _check_issuer(self, issuer_id: str, by: str) -> None:
        """Raises HutongError(PARTICIPANT_UNKNOWN) if a requestor names an issuer that is not in the directory."""
        if by and self._issuers is not None and issuer_id not in self._issuers:
            here = ", ".join(sorted(self._issuers)[:ISSUERS_NAMED])
            raise HutongError(Reason.ERROR_REASON_PARTICIPANT_UNKNOWN, field="issuer_id", issuers=here)

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
