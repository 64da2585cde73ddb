"""Tiny ONNX networks, built here, that have the shapes of real ones and really look at the image.

Each detector sees a face wherever a 32-pixel cell is brighter than 200; the embedder takes the means of 16 patches
under random weights; the classifier takes brightness for life. Faces are 64 pixels of pictures of 640.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

STRIDES = (8, 16, 32)
DIMENSION = 64
LANDMARKS = np.array([[-0.30, -0.25], [0.30, -0.25], [0.0, 0.02], [-0.25, 0.30], [0.25, 0.30]])
"""Offsets from the middle of the face, in faces."""
FACE_PX = 64.0


class Graph:
    """A graph under construction."""

    def __init__(self, shape: list[Any], name: str = "input") -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.input = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        self.outputs: list[Any] = []
        self.name = name

    def constant(self, name: str, value: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def out(self, name: str, shape: list[Any]) -> None:
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def save(self, path: Path) -> None:
        graph = helper.make_graph(self.nodes, "tiny", [self.input], self.outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        path.write_bytes(model.SerializeToString())

    def cells(self, name: str, stride: int, weights: Any, bias: Any, channels: int, shape: list[int]) -> str:
        """Looks at each cell of stride x stride pixels: a convolution, then [.., channels] rows."""
        kernel = np.zeros((len(bias), 3, stride, stride), np.float32)
        kernel[:] = np.asarray(weights, np.float32)[:, None, None, None] / (3 * stride * stride)
        w = self.constant(name + "_w", kernel)
        b = self.constant(name + "_b", np.asarray(bias, np.float32))
        seen = self.node(
            "Conv", [self.name, w, b], name + "_c", strides=[stride, stride], kernel_shape=[stride, stride]
        )
        if channels == 1:
            low, high = self.constant(name + "_l", np.float32(0)), self.constant(name + "_h", np.float32(1))
            seen = self.node("Clip", [seen, low, high], name + "_k")
        turned = self.node("Transpose", [seen], name + "_t", perm=[0, 2, 3, 1])
        return self.node("Reshape", [turned, self.constant(name + "_s", np.array(shape, np.int64))], name)


def yunet(path: Path) -> None:
    """Twelve outputs as cv2.FaceDetectorYN reads them; input BGR 0..255."""
    graph = Graph([1, 3, "height", "width"])
    for kind, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for stride in STRIDES:
            name = f"{kind}_{stride}"
            if kind in ("cls", "obj"):
                gain = 1 / 40 if stride == 32 else 0.0
                graph.cells(name, stride, [gain], [-200 / 40 if stride == 32 else 0.0], 1, [1, -1, 1])
            elif kind == "bbox":
                size = float(np.log(FACE_PX / stride))
                graph.cells(name, stride, [0] * 4, [0.5, 0.5, size, size], 4, [1, -1, 4])
            else:
                offsets = (LANDMARKS * FACE_PX / stride + 0.5).reshape(-1)
                graph.cells(name, stride, [0] * 10, offsets, 10, [1, -1, 10])
            graph.out(name, [1, None, channels])
    graph.save(path)


def scrfd(path: Path) -> None:
    """Nine outputs as insightface's detector reads them; input RGB (x - 127.5) / 128, two anchors a cell."""
    graph = Graph([1, 3, "height", "width"], "input.1")
    bright = (200 - 127.5) / 128
    for stride in STRIDES:
        gain = 128 / 40 if stride == 32 else 0.0
        bias = -bright * 128 / 40 if stride == 32 else 0.0
        graph.cells(f"score_{stride}", stride, [gain, 0], [bias, 0], 1, [-1, 1])
        graph.out(f"score_{stride}", [None, 1])
    for stride in STRIDES:
        half = FACE_PX / 2 / stride
        box = [half - 0.5, half - 0.5, half + 0.5, half + 0.5]
        graph.cells(f"bbox_{stride}", stride, [0] * 8, box * 2, 8, [-1, 4])
        graph.out(f"bbox_{stride}", [None, 4])
    for stride in STRIDES:
        offsets = (LANDMARKS * FACE_PX / stride + 0.5).reshape(-1).tolist()
        graph.cells(f"kps_{stride}", stride, [0] * 20, offsets * 2, 20, [-1, 10])
        graph.out(f"kps_{stride}", [None, 10])
    graph.save(path)


def embedder(path: Path, size: int = 112, seed: int = 1) -> None:
    """Means of 4 x 4 patches under random colour weights: DIMENSION numbers."""
    random = np.random.default_rng(seed)
    graph = Graph([1, 3, size, size], "data")
    patch = size // 4
    kernel = random.standard_normal((DIMENSION // 16, 3, patch, patch)).astype(np.float32) / patch
    w = graph.constant("w", kernel)
    graph.node("Conv", ["data", w], "patches", strides=[patch, patch], kernel_shape=[patch, patch])
    graph.node("Flatten", ["patches"], "embedding", axis=1)
    graph.out("embedding", [1, DIMENSION])
    graph.save(path)


def classifier(path: Path, outputs: int, size: int = 80, threshold: float = 100.0, scale: float = 1.0) -> None:
    """Life by brightness: [1, outputs] logits with index 1 live, or (outputs 0) [N] one probability."""
    graph = Graph(["N", 3, size, size], "data")
    graph.node("ReduceMean", ["data"], "mean", axes=[1, 2, 3], keepdims=0)
    graph.node("Sub", ["mean", graph.constant("threshold", np.float32(threshold * scale))], "over")
    graph.node("Mul", ["over", graph.constant("gain", np.float32(0.1 / scale))], "logit")
    if outputs == 0:
        graph.node("Sigmoid", ["logit"], "live")
        graph.out("live", ["N"])
    else:
        graph.node("Reshape", ["logit", graph.constant("shape", np.array([1, 1], np.int64))], "column")
        weights = np.zeros((1, outputs), np.float32)
        weights[0, 1] = 1
        graph.node("MatMul", ["column", graph.constant("pick", weights)], "logits")
        graph.out("logits", [1, outputs])
    graph.save(path)


def opencv_pack(folder: Path) -> Path:
    """A folder as docs/faces.md shows it."""
    folder.mkdir(parents=True, exist_ok=True)
    yunet(folder / "find.onnx")
    embedder(folder / "embed.onnx")
    classifier(folder / "live.onnx", 3)
    pack = {
        "detector": {"file": "find.onnx"},
        "embedder": {"file": "embed.onnx", "size": 112, "dimension": DIMENSION},
        "classifier": {
            "file": "live.onnx", "size": 80, "channels": "BGR", "mean": [0, 0, 0], "scale": [1, 1, 1], "crop": 1.2,
        },
    }  # fmt: skip
    (folder / "pack.json").write_text(json.dumps(pack))
    return folder


def insightface_pack(folder: Path, *, liveness: bool = True) -> Path:
    """A pack directory as insightface lays it out."""
    folder.mkdir(parents=True, exist_ok=True)
    scrfd(folder / "det_tiny.onnx")
    embedder(folder / "w_tiny.onnx")
    if liveness:
        (folder / "liveness").mkdir(exist_ok=True)
        classifier(folder / "liveness" / "liveness.onnx", 0, threshold=100, scale=1 / 255)
    return folder


def picture(faces: list[tuple[int, int]], seed: int = 1, size: int = 640) -> Any:
    """A BGR image with a bright, textured, asymmetric face around each of these cells' middles."""
    random = np.random.default_rng(seed)
    image = random.integers(20, 70, (size, size, 3)).astype(np.uint8)
    for number, (column, row) in enumerate(faces):
        x, y = column * 32 + 16, row * 32 + 16
        look = np.random.default_rng(seed * 100 + number)
        patch = np.kron(look.integers(80, 190, (8, 8, 3)), np.ones((8, 8, 1)))
        patch = patch + look.normal(0, 8, (64, 64, 3))
        image[y - 32 : y + 32, x - 32 : x + 32] = np.clip(patch, 0, 195).astype(np.uint8)
        image[y - 16 : y + 16, x - 16 : x + 16] = np.clip(236 + look.normal(0, 8, (32, 32, 3)), 0, 255).astype(np.uint8)
    return image
