"""Options of a client: connection, deadlines and retries. All times are in seconds, as in Python's own interfaces."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Final

import grpc

from hutong_contract.limits import MESSAGE_BYTES_MAX
from hutong_contract.names import CALLER_METADATA, REQUESTOR_SECRET_METADATA, WALLET_TRID
from hutong_contract.secret import Secret

KEEPALIVE_MS: Final = 30_000
PORT_EXAMPLE: Final = 50050
PORT_MAX: Final = 65_535
_SCHEMES: Final = ("unix:", "unix-abstract:", "dns:", "ipv4:", "ipv6:", "vsock:")
"""Prefixes of targets that name their scheme (gRPC's naming)."""


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """Certificates, PEM. With its own key and chain the client proves its identity (mTLS)."""

    root_certificates: bytes | None = None
    """Authorities that may sign the gateway's certificate; None: the system's."""
    private_key: bytes | None = field(default=None, repr=False)
    certificate_chain: bytes | None = None
    server_name: str = ""
    """The name to expect in the certificate, if it is not the target's."""


@dataclass(frozen=True, slots=True)
class RetryOptions:
    """When a call is sent again: only reads and requests with an idempotency key, only where the failure is passing.

    `throttle_tokens` and `throttle_ratio` are those of gRPC's retry throttling: each failure takes a token, each
    success gives a part of one back, and with half or fewer left nothing is sent again.
    """

    attempts_max: int = 4
    """Attempts in all, the first included; 1 turns retries off."""
    backoff_s: float = 0.05
    """Longest wait before the second attempt; drawn uniformly from 0 to it, and doubled for each further one."""
    backoff_max_s: float = 2.0
    throttle_tokens: float = 10.0
    throttle_ratio: float = 0.1


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Options of a client; the defaults suit a gateway on this machine."""

    caller: str = ""
    """What this client calls itself, printable ASCII: idempotency keys of callers with different names are different
    keys. Where mTLS proves an identity, that one counts instead."""
    requestor: str = WALLET_TRID
    """The token requestor (TRID, 11 digits) in whose name tokens and codes are requested."""
    requestor_secret: Secret[str] | None = field(default=None, repr=False)
    """The requestor's secret, if it was registered with one."""
    deadline_s: float = 30.0
    """For a whole call, retries included."""
    tls: TlsOptions | None = None
    """None: plaintext."""
    allow_plaintext: bool = False
    """Plaintext to anything but loopback or a Unix socket is refused unless this is set."""
    retry: RetryOptions = RetryOptions()
    channel_options: tuple[tuple[str, str | int], ...] = ()
    """Added to those that the client sets itself."""


def metadata_of(options: ClientOptions) -> tuple[tuple[str, str], ...]:
    """The metadata of every call."""
    return ((CALLER_METADATA, options.caller),) if options.caller else ()


def requestor_metadata(options: ClientOptions) -> tuple[tuple[str, str], ...]:
    """The further metadata of calls in the name of the token requestor."""
    secret = options.requestor_secret
    return () if secret is None else ((REQUESTOR_SECRET_METADATA, secret.reveal()),)


def channel_arguments(target: str, options: ClientOptions) -> list[tuple[str, str | int]]:
    """Arguments of a gRPC channel to `target`, blocking or not.

    Raises:
        ValueError: the target is none (see `check_target`), or plaintext would leave this machine.
    """
    check_target(target)
    if options.tls is None and not (options.allow_plaintext or is_local(target)):
        raise ValueError(f"{target} is not on this machine: give TLS options, or allow_plaintext to do without")
    arguments: list[tuple[str, str | int]] = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.enable_retries", 0),  # retries are this client's own: it knows which requests may be repeated
        *options.channel_options,
    ]
    if options.tls is not None and options.tls.server_name:
        arguments.append(("grpc.ssl_target_name_override", options.tls.server_name))
    return arguments


def channel_credentials(options: ClientOptions) -> grpc.ChannelCredentials | None:
    """Credentials of a gRPC channel; None: plaintext."""
    tls = options.tls
    if tls is None:
        return None
    return grpc.ssl_channel_credentials(tls.root_certificates, tls.private_key, tls.certificate_chain)


def check_target(target: str) -> None:
    """Raises ValueError unless a target names a host with its port, or a Unix socket. Without a port gRPC would try
    another one, and say only that nobody answers."""
    if target.startswith(_SCHEMES):
        return
    host, colon, port = target.rpartition(":")
    bare = host if colon else target
    if bare.count(":") > 0 and not bare.startswith("["):
        raise ValueError(f"{target!r}: write an IPv6 address in brackets, with a port: [::1]:{PORT_EXAMPLE}")
    if not colon or target.endswith("]"):
        raise ValueError(f"{target!r} has no port: write {target or 'localhost'}:{PORT_EXAMPLE}, or unix:/PATH")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) <= PORT_MAX):
        raise ValueError(f"{target!r} is not HOST:PORT or unix:/PATH")


def is_local(target: str) -> bool:
    """Whether a target is a Unix socket or a loopback address."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    host = target.rsplit(":", 1)[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
