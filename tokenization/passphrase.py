"""The passphrase of the key file, if the caller passes none.

First the environment variable HUTONG_PASSPHRASE. Otherwise the file `passphrase` beside the vault, readable by its
owner only, which is made up at random when the vault is created. That protects a copied vault file, but not a copied
folder. For more protection set the variable, or keep the keys in a hardware module.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from hutong_contract.secret import Secret
from tokenization.errors import VaultError
from tokenization.keyring import write_durably

VARIABLE: Final = "HUTONG_PASSPHRASE"
FILE_NAME: Final = "passphrase"
PASSPHRASE_BYTES: Final = 32


def find_passphrase(folder: Path, *, create: bool) -> Secret[str]:
    """The passphrase for the vault in `folder`; with `create`, a new one is written where there is none.

    Raises VaultError where there is none, or where others can read the file.
    """
    given = os.environ.get(VARIABLE)
    if given:
        return Secret(given)
    path = folder / FILE_NAME
    if not path.exists():
        if not create:
            raise VaultError(f"no passphrase: set {VARIABLE}, or put it into {path} with mode 0600")
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(path, secrets.token_urlsafe(PASSPHRASE_BYTES).encode())
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise VaultError(f"others can read {path}; run: chmod 600 {path}")
    return Secret(path.read_text(encoding="utf-8").strip())
