"""Errors of opening a vault. Refused requests are hutong_contract.errors.HutongError."""

from __future__ import annotations


class VaultError(Exception):
    """The vault cannot be opened; the text says why and what to do. Nothing was changed."""


class WrongPassphraseError(VaultError):
    """The passphrase does not open the key file."""


class VaultDamagedError(VaultError):
    """A file of the vault was changed, cut or lost outside of Hutong."""
