"""Which adapter a folder of models wants."""

from __future__ import annotations

from pathlib import Path

from facepay.extraction.interface import WHERE_MODELS, Extractor, ModelsUnusable


def open_pack(folder: Path) -> Extractor:
    """Opens a folder of models. Raises ModelsUnusable, whose text says what is missing and where to get it."""
    if not folder.is_dir():
        raise ModelsUnusable(f"{folder} is not a folder. {WHERE_MODELS}")
    from facepay.extraction.opencv_pack import OpencvPack, declared

    if declared(folder):
        return OpencvPack(folder)
    if not any(folder.glob("*.onnx")):
        raise ModelsUnusable(f"{folder} holds no ONNX models. {WHERE_MODELS}")
    from facepay.extraction.insightface_pack import InsightfacePack

    return InsightfacePack(folder)
