"""The face service of a network, on the port of its gateway. Imported where the network has one: its modules are those
of the extra `faces`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import grpc

from facepay.model import Options
from facepay.operators import Operators
from facepay.server import FaceServicer
from facepay.service import FaceService, open_service
from gateway.engine.clock import Clock
from hutong.facepay.v1 import face_pb2, face_pb2_grpc


class FaceSide:
    """Service and servicer, opened and closed together."""

    def __init__(self, folder: Path, options: Options, operators: Operators, clock: Clock) -> None:
        """`folder`: templates, sealed; made where there is none. Raises facepay.gallery.engine.GalleryUnavailable."""
        self.service: FaceService = open_service(
            folder, options=options, clock_us=clock.now_us, settled=lambda: clock.settled
        )
        self._servicer = FaceServicer(self.service, operators, clock.now_us)

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """Adds the service to a server; returns its full name."""
        face_pb2_grpc.add_FaceServiceServicer_to_server(self._servicer, server)
        return (face_pb2.DESCRIPTOR.services_by_name["FaceService"].full_name,)

    def close(self) -> None:
        """Ends the servicer's threads, then the service."""
        self._servicer.close()
        self.service.close()
