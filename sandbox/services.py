"""How a network's services besides payments come onto its gateway's port."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import grpc
from google.protobuf.descriptor import FileDescriptor

from gateway.barcode.server import BarcodeServicer
from gateway.clearing.server import SettlementServicer
from gateway.server import Register
from hutong.gateway.v1 import barcode_pb2, barcode_pb2_grpc, settlement_pb2, settlement_pb2_grpc
from hutong.tokenization.v1 import token_pb2, token_pb2_grpc
from tokenization.server import TokenServicer


def barcodes(servicer: BarcodeServicer) -> Register:
    """Registers the barcode service."""
    return _register(barcode_pb2_grpc.add_BarcodeServiceServicer_to_server, servicer, barcode_pb2.DESCRIPTOR)


def tokens(servicer: TokenServicer) -> Register:
    """Registers the token service."""
    return _register(token_pb2_grpc.add_TokenServiceServicer_to_server, servicer, token_pb2.DESCRIPTOR)


def settlement(servicer: SettlementServicer) -> Register:
    """Registers the settlement service."""
    return _register(settlement_pb2_grpc.add_SettlementServiceServicer_to_server, servicer, settlement_pb2.DESCRIPTOR)


def _register(add: Callable[[Any, grpc.aio.Server], None], servicer: object, file: FileDescriptor) -> Register:
    """Adds a servicer to a server, and names the one service of its file."""
    (service,) = file.services_by_name.values()

    def register(server: grpc.aio.Server) -> Sequence[str]:
        add(servicer, server)
        return (service.full_name,)

    return register
