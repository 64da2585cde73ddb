"""The token service in this process: everything that its gRPC server and the gateway use.

`by` names the requestor (TRID) that asks; its role and its tokens decide what it may do. An empty `by` is this process
itself, which may do everything. A token is named by a Secret (the number) or by 16 bytes (the reference). Every refusal
is a hutong_contract.errors.HutongError.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from hutong_contract.errors import HutongError, Reason
from hutong_contract.payment_code import day_of
from hutong_contract.secret import Secret
from tokenization import codes
from tokenization.codes import CodeReader
from tokenization.desk import TokenName
from tokenization.interface import KeyUse, Resolution
from tokenization.key_desk import KeyDesk
from tokenization.keyring import KdfCost, KekStore
from tokenization.opening import OpenVault, open_folder, open_postgres
from tokenization.requestors import Action
from tokenization.resolver import Resolver
from tokenization.rotation import KeyStatus, Rotation
from tokenization.store import Session, StoreError
from tokenization.token_desk import REGISTER_MAX, TokenDesk
from tokenization.writing import Change, Writes, system_clock_us

HOUSEKEEPING_US: Final = 600_000_000
"""How often expired tokens are recorded and old codes deleted."""
EXPIRED_PER_ROUND: Final = 1_000

__all__ = ["REGISTER_MAX", "TokenName", "TokenService", "open_service", "open_service_on_postgres"]


class TokenService(TokenDesk, KeyDesk):
    """One vault and all operations on it. Thread-safe. Implements interface.TokenResolver."""

    def __init__(
        self,
        opened: OpenVault,
        clock_us: Callable[[], int] = system_clock_us,
        settled: Callable[[], bool] = lambda: True,
    ) -> None:
        """`clock_us`: UTC in microseconds. `settled`: whether tokens and codes may be ended by it now: what is ended is
        written, for good."""
        super().__init__(opened, clock_us)
        self._settled = settled
        vault = opened.vault
        self._reader = CodeReader(vault.index, vault.purposes, vault.failures)
        self._resolver = Resolver(vault.index, vault.purposes, self._reader)
        self._resolving = threading.Lock()
        self._next_housekeeping_us = 0
        self.rotation = Rotation(vault, clock_us)
        self.rotation.resume()

    def close(self) -> None:
        """Stops a rotation (which continues at the next start), finishes queued jobs, seals the file."""
        self.rotation.stop()
        self._opened.close()

    def resolve(self, uses: Sequence[KeyUse], now_us: int) -> list[Resolution | HutongError]:
        """Resolves keys (interface.TokenResolver.resolve)."""
        with self._resolving:
            try:
                self._vault.refresh(now_us)
            except StoreError:
                return [HutongError(Reason.ERROR_REASON_VAULT_UNAVAILABLE) for _ in uses]
            answers = self._resolver.resolve(uses, now_us)
            failed, self._reader.failed = self._reader.failed, []
        if failed:
            self._keep_failures(failed)
        left_us = self._next_housekeeping_us - now_us
        if not 0 < left_us <= HOUSEKEEPING_US and self._settled():  # more: the clock was set back
            self._next_housekeeping_us = now_us + HOUSEKEEPING_US
            self._quietly(lambda session: self._housekeeping(session, now_us))
        return answers

    def resolve_now(self, uses: Sequence[KeyUse]) -> list[Resolution | HutongError]:
        """`resolve` by the service's own clock, for callers whose clock cannot be trusted."""
        return self.resolve(uses, self._clock_us())

    def rotate_keys(self, *, by: str = "") -> KeyStatus:
        """Starts a rotation of the KEK in the background."""
        self.permit(by, Action.ROTATE_KEYS)
        self.rotation.begin(self._change(by, ""))
        return self.rotation.status()

    def key_status(self, *, by: str = "") -> KeyStatus:
        """The KEK's versions, and what a rotation has left to do."""
        self.permit(by, Action.ROTATE_KEYS)
        return self.rotation.status()

    def _keep_failures(self, failed: list[tuple[bytes, int]]) -> None:
        writes = Writes(self._vault.purposes.row)
        self._quietly(lambda session: writes.add(session, "failures", failed))

    def _quietly(self, job: Callable[[Session], object]) -> None:
        """Queues a job without waiting: memory has the facts already, and the next round repeats the job."""
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


def open_service(
    folder: Path,
    passphrase: Secret[str] | None = None,
    *,
    suite: str | None = None,
    clock_us: Callable[[], int] = system_clock_us,
    settled: Callable[[], bool] = lambda: True,
    cost: KdfCost | None = None,
    keks: KekStore | None = None,
) -> TokenService:
    """Opens the vault in a folder; creates it where there is none.

    `suite` is "international" (the default of a new vault) or "sm". Without a passphrase HUTONG_PASSPHRASE is used, or
    the folder's own file (see `passphrase`). `keks` replaces the key file, by a hardware module's keys for example.
    Raises errors.VaultError where anything is wrong; then nothing was changed.
    """
    opened = open_folder(folder, passphrase, suite, clock_us, cost or KdfCost(), keks)
    return TokenService(opened, clock_us, settled)


def open_service_on_postgres(
    conninfo: str,
    folder: Path,
    passphrase: Secret[str] | None = None,
    *,
    suite: str | None = None,
    clock_us: Callable[[], int] = system_clock_us,
    settled: Callable[[], bool] = lambda: True,
    cost: KdfCost | None = None,
    keks: KekStore | None = None,
) -> TokenService:
    """`open_service`, with the rows in a PostgreSQL database (`conninfo`: a libpq connection string or URI)."""
    opened = open_postgres(conninfo, folder, passphrase, suite, clock_us, cost or KdfCost(), keks)
    return TokenService(opened, clock_us, settled)
