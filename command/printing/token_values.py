"""Messages of the token service as plain values: what commands print as JSON, and words for states and kinds. Without
rich, which commands that people call often do without."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from hutong.tokenization.v1 import token_pb2 as pb


def state_word(state: int) -> str:
    """A state in one word."""
    return pb.TokenState.Name(pb.TokenState.ValueType(state)).removeprefix("TOKEN_STATE_").lower()


def kind_word(kind: int) -> str:
    """A kind of key in one word."""
    return pb.TokenKeyKind.Name(pb.TokenKeyKind.ValueType(kind)).removeprefix("TOKEN_KEY_KIND_").lower()


def plain(message: Message) -> dict[str, Any]:
    """A message for JSON: field names as in the contract, references in hexadecimal, states and kinds in words."""
    fields: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return _readable(message, fields)


def _readable(message: Message, fields: dict[str, Any]) -> dict[str, Any]:
    for field, value in message.ListFields():
        if field.type == field.TYPE_BYTES and not field.is_repeated:
            fields[field.name] = value.hex()
        elif field.type == field.TYPE_ENUM and field.name == "state":
            fields[field.name] = state_word(value)
        elif field.type == field.TYPE_ENUM and field.name == "kind":
            fields[field.name] = kind_word(value)
        elif field.type == field.TYPE_MESSAGE and field.is_repeated:
            fields[field.name] = [_readable(one, fields[field.name][at]) for at, one in enumerate(value)]
        elif field.type == field.TYPE_MESSAGE and isinstance(fields[field.name], dict):
            fields[field.name] = _readable(value, fields[field.name])
        elif field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64) and not field.is_repeated:
            fields[field.name] = value
    return fields
