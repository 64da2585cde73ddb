"""What ends a measurement."""

from __future__ import annotations


class BenchError(Exception):
    """A measurement cannot be made; the text says why, and what to do."""
