"""ONNX Runtime's quantizer, which reads and writes files."""

from __future__ import annotations

import contextlib
import importlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.onnx.external import save
from export.core.quiet import quiet

if TYPE_CHECKING:
    from onnx import ModelProto


@contextlib.contextmanager
def quantizing(model: ModelProto, folder: Path, external: bool = False) -> Iterator[tuple[Any, str, str]]:
    """Yield the quantizer, the path of a file with the model, and a path for the quantized one.

    Args:
        model: the model to quantize.
        folder: for the files, which are removed afterwards.
        external: store the weights outside the file.
    """
    with quiet(), tempfile.TemporaryDirectory(dir=folder) as place:
        save(model, Path(place) / "float.onnx", external)
        yield importlib.import_module("onnxruntime.quantization"), f"{place}/float.onnx", f"{place}/int8.onnx"
