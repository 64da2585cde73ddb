"""Options of commands that listen: the files of a TLS server."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.listen import Tls


def served_tls(certificate: Path | None, key: Path | None, authority: Path | None) -> Tls | None:
    """The files of a TLS server; None for plaintext. Raises click.UsageError where one is missing."""
    if certificate is None and key is None:
        if authority is not None:
            raise click.UsageError("--tls-client-ca needs --tls-cert and --tls-key")
        return None
    if certificate is None or key is None:
        raise click.UsageError("--tls-cert and --tls-key belong together")
    return Tls(certificate, key, authority)
