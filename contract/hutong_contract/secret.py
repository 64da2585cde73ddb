"""A type for secret values, which masks itself wherever it is turned into text."""

from __future__ import annotations

from typing import Generic, TypeVar

Value = TypeVar("Value", str, bytes)


class Secret(Generic[Value]):
    """A PAN, token, code, passcode, key or template.

    `repr`, `str`, `format` and pickling show or give nothing; `reveal()` is the one way to the value,
    so that every use is found by searching for it.
    """

    __slots__ = ("_value",)
    _value: Value

    def __init__(self, value: Value) -> None:
        self._value = value

    def reveal(self) -> Value:
        """The value itself. Do not store the result in anything that can be printed."""
        return self._value

    def last_four(self) -> str:
        """The last four characters, all that may be displayed of an account number."""
        value = self._value
        return value[-4:] if isinstance(value, str) else ""

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a secret is not pickled; pass it through a sealed channel")
