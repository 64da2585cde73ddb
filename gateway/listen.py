"""The address that a gateway listens on, and the rule that plaintext stays on this machine."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509


class ListenError(ValueError):
    """The address cannot be used; the text says what to change."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of a TLS server."""

    certificate: Path
    key: Path
    client_authority: Path | None = None
    """If set, callers must present a certificate of this authority (mTLS)."""


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed address."""

    host: str
    port: int
    path: str = ""
    """Of a Unix socket."""

    @property
    def target(self) -> str:
        """As gRPC writes it."""
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def stays_here(self) -> bool:
        """Whether only this machine can connect."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse(text: str) -> Address:
    """`HOST:PORT`, `[IPV6]:PORT` or `unix:/path`. Raises ListenError."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path:
            raise ListenError("a Unix socket needs a path: unix:/run/hutong.sock")
        return Address("", 0, path)
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ListenError(f"{text!r} is not HOST:PORT or unix:/path")
    return Address(host.removeprefix("[").removesuffix("]"), int(port))


def certified_name(certificate: Path) -> str:
    """A host name or address in the subject alternative names of the first certificate of a PEM file; empty if there is
    none (a CN is no host name). Raises ListenError if the file is no certificate."""
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    except (OSError, ValueError) as error:
        raise ListenError(f"{certificate} cannot be read as a certificate: {error}") from None
    hosts = names.get_values_for_type(x509.DNSName) or [str(one) for one in names.get_values_for_type(x509.IPAddress)]
    return hosts[0] if hosts else ""


def check(address: Address, *, secured: bool, plaintext_allowed: bool) -> None:
    """Refuses plaintext that others could read, unless it was allowed explicitly."""
    if not (secured or plaintext_allowed or address.stays_here):
        raise ListenError(
            f"{address.target} would be reachable in plaintext from other machines. Listen on 127.0.0.1 or a Unix "
            "socket, give a certificate and key, or say --plaintext-anywhere if something else protects the network"
        )
