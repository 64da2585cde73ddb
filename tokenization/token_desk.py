"""Requests about tokens: requesting one, showing it, changing its state, erasing its account."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Final

from hutong_contract.errors import HutongError, Reason
from hutong_contract.secret import Secret
from tokenization.accounts import LIFETIME_US, Enrolment, Registration
from tokenization.desk import Desk, TokenName
from tokenization.domain import Budget, Domain, Policy, check_assurance
from tokenization.interface import Account
from tokenization.lifecycle import Event, State
from tokenization.requestors import Action
from tokenization.store import Session
from tokenization.views import KeyView, TokenView, key_view, token_view
from tokenization.writing import Change, Writes

REGISTER_MAX: Final = 2_000
"""Accounts in one transaction; `register_accounts` splits longer lists."""


class TokenDesk(Desk):
    """Tokens of accounts."""

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
        """Gives every account its account-unified token, in order; an account that has one keeps it and its terms.

        Raises HutongError: FIELD_INVALID (an account number that cannot be one, or terms that are not allowed),
        PARTICIPANT_UNKNOWN (an issuer that is not here), REQUESTOR_NOT_ALLOWED, VAULT_UNAVAILABLE. Then no account of
        the same two thousand got a token.
        """
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
                self._check_issuer(account.issuer_id, by)
                policy = Policy(account.issuer_id, (by,) if by else (), domain or Policy().domain, budget, method)
                self.permit(by, Action.REQUEST, policy)
                policies[account.issuer_id] = policy
            enrolments.append(Enrolment(account, policy, until_us, state))
        answers: list[Registration] = []
        for start in range(0, len(enrolments), REGISTER_MAX):
            part = enrolments[start : start + REGISTER_MAX]
            answers += self._vault.write(partial(self._accounts.register, enrolments=part, change=change))
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
        """Destroys the account's data key and all that identifies the account. Cannot be undone."""
        slot = self._locate(name, by, Action.ERASE)
        change = self._change(by, reason)
        self._vault.write(lambda session: self._accounts.erase(session, slot + 1, change))
        self._vault.store.scrub()

    def detokenize(self, name: TokenName, *, by: str = "") -> Secret[str]:
        """The account number of a token. The history records who asked."""
        slot = self._locate(name, by, Action.DETOKENIZE)
        change = self._change(by, "")
        writes = Writes(self._vault.purposes.row)

        def job(session: Session) -> Secret[str]:
            number = self._accounts.account_of(writes.account(session, slot + 1))
            writes.event(session, slot + 1, 0, "detokenized", change)
            return number

        return self._vault.write(job)
