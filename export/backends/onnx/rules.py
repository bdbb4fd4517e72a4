"""Models that ONNX, and formats converted from it, cannot represent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from export.core.keras_graph import layers_under
from export.core.precheck import TENSOR_LIST, UNROLLED, without_operators
from zoo.common.lazy import keras

if TYPE_CHECKING:
    from export.core.format import FormatRequest
    from export.source.source import SourceModel

OTHERS, BEFORE = "Compute it with other operators", "Compute spectra before the model"
UNSUPPORTED = {
    "Erfinv": OTHERS,
    "Qr": OTHERS,
    "Svd": OTHERS,
    "FFT": BEFORE,
    "RFFT": BEFORE,
    "Complex": "Compute with real numbers",
    TENSOR_LIST: f"{UNROLLED}, or saved_model or tflite",
}


def gaps(source: SourceModel, _: FormatRequest) -> Iterator[str]:
    """Yield transposed convolutions with a stride larger than their kernel, which ONNX cannot represent."""
    for layer in layers_under(source.model):
        if not isinstance(layer, (keras.layers.Conv2DTranspose, keras.layers.Conv1DTranspose)):
            continue
        if any(stride > size for stride, size in zip(layer.strides, layer.kernel_size, strict=True)):
            yield (
                "the kernel of a transposed convolution must be as large as its stride. Received: layer "
                f"{layer.name!r} with kernel_size={layer.kernel_size}, strides={layer.strides}. Use a kernel as large"
            )


RULES = (without_operators(UNSUPPORTED), gaps)
