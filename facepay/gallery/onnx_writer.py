"""Writes the one ONNX graph that int8 products need, without the onnx package.

ONNX is protobuf; these few messages are written field by field (onnx.proto: ModelProto, GraphProto, NodeProto,
TensorProto, ValueInfoProto), which spares everybody a dependency of 15 MB.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from hutong_contract.wire import framed, varint

_UINT8: Final = 2
"""TensorProto.DataType, as the next two."""
_INT8: Final = 3
_INT32: Final = 6
_IR_VERSION: Final = 8
_OPSET: Final = 13


def matmul_model(weights: NDArray[np.int8], zero_point: int) -> bytes:
    """A model `products = MatMulInteger(queries [Q, D] uint8, weights [D, N] int8, zero_point)`, products int32."""
    depth, count = weights.shape
    inputs = b"".join(_text(1, name) for name in ("queries", "weights", "zero"))
    node = inputs + _text(2, "products") + _text(4, "MatMulInteger")
    graph = (
        _bytes(1, node)
        + _text(2, "products")
        + _bytes(5, _tensor("weights", _INT8, (depth, count), weights.tobytes()))
        + _bytes(5, _tensor("zero", _UINT8, (), bytes([zero_point])))
        + _bytes(11, _value("queries", _UINT8, (None, depth)))
        + _bytes(12, _value("products", _INT32, (None, count)))
    )
    return _number(1, _IR_VERSION) + _bytes(7, graph) + _bytes(8, _number(2, _OPSET))


def _number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return framed(varint(field << 3 | 2), value)


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _tensor(name: str, kind: int, shape: tuple[int, ...], raw: bytes) -> bytes:
    dims = b"".join(_number(1, size) for size in shape)
    return dims + _number(2, kind) + _text(8, name) + _bytes(9, raw)


def _value(name: str, kind: int, shape: tuple[int | None, ...]) -> bytes:
    dims = b"".join(_bytes(1, _text(2, "Q") if size is None else _number(1, size)) for size in shape)
    tensor_type = _number(1, kind) + _bytes(2, dims)
    return _text(1, name) + _bytes(2, _bytes(1, tensor_type))
