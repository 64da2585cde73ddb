"""Simulated operators who ask engines to close settlement windows."""

from __future__ import annotations

from hutong_contract.errors import HutongError
from verification.simulation.scene import Process, Scene


class SimulatedClosing:
    """An operator's request to close a window, and its answer."""

    def __init__(self, world: Scene, node: Process, number: int) -> None:
        self.lost = False
        """Whether the connection ended, so that no answer arrives any more."""
        self.number = number
        self._due = number <= world.witness.windows.last + 1
        self._world = world
        self._node = node

    def answer(self, payload: bytes) -> None:
        self._end()
        self._world.say(f"whether window {self.number} was to be closed is decided")
        self._world.witness.windows.told(self.number, due=self._due)

    def fail(self, error: HutongError) -> None:
        self._end()
        self._world.say(f"closing window {self.number} is refused: {error.name}")
        witness = self._world.witness
        witness.disk_failed |= bool(self._world.storage.failed)
        if error.name != "JOURNAL_UNAVAILABLE" or not witness.disk_failed:
            witness.complain("refusals have their reason", f"{error.name} for the closing of window {self.number}")

    def _end(self) -> None:
        self._node.step()
        if self.lost or not self._node.closing_answered(self):
            self._world.witness.complain("each request has one answer", f"the closing of window {self.number} got more")
