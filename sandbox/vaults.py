"""Opens the token vault of a network: its own or a shared folder, with its keys in a file or in a hardware module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.engine.clock import Clock
from hutong_contract.extras import needs
from hutong_contract.secret import Secret
from tokenization import passphrase
from tokenization.errors import VaultError
from tokenization.opening import VAULT_FILE
from tokenization.service import TokenService, open_service

PIN_VARIABLE: Final = "HUTONG_HSM_PIN"
"""Environment variable with the PIN of the hardware module's token; a command line would show it to everybody."""
SECRET_VARIABLES: Final = frozenset({PIN_VARIABLE, passphrase.VARIABLE})
"""Environment variables that open a vault. They are not passed on to processes that a network starts."""


@dataclass(frozen=True, slots=True)
class KeyModule:
    """A token of a hardware module (PKCS#11) that keeps the key-encryption keys."""

    library: Path
    """The module's own shared library."""
    token_label: str
    pin: Secret[str]


@dataclass(frozen=True, slots=True)
class OpenedVault:
    """A token service on an open vault. `close` ends both it and the session with its module."""

    service: TokenService
    _end_session: Callable[[], None] | None = None

    def close(self) -> None:
        """Closes the vault, then its module's session."""
        self.service.close()
        if self._end_session is not None:
            self._end_session()


def open_vault(folder: Path, module: KeyModule | None = None, clock: Clock | None = None) -> OpenedVault:
    """Opens the vault in a folder, and creates it if there is none. Its keys are in a file beside it, or in a module.
    `clock`: the process's own, if it has one. Raises VaultError; then nothing was changed."""
    clock = clock or Clock()
    if module is None:
        return OpenedVault(open_service(folder, clock_us=clock.now_us, settled=lambda: clock.settled))
    with needs("hsm"):
        from tokenization.hsm import HsmKeks
    if not module.library.is_file():
        raise VaultError(f"there is no PKCS#11 library at {module.library}")
    keks = HsmKeks(str(module.library), module.token_label, module.pin, clock.now_us())
    try:
        if not keks.is_new and not (folder / VAULT_FILE).exists():
            # A rotation destroys the version before it: with it, the other vault's accounts.
            raise VaultError(
                f"the token {module.token_label!r} keeps the keys of another vault, for {folder} has no vault: give "
                "each vault a token of its own"
            )
        opened = open_service(folder, clock_us=clock.now_us, settled=lambda: clock.settled, keks=keks)
        return OpenedVault(opened, keks.close)
    except BaseException:
        keks.close()
        raise
