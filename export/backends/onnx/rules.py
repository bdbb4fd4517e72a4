"""What is known to fail on the way to ONNX, and so to what is made from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from export.core.keras_graph import layers_under
from export.core.precheck import LISTS, lacking
from zoo.common.lazy import keras

if TYPE_CHECKING:
    from export.core.format import FormatRequest
    from export.source.source import Source

OTHERS, BEFORE = "Compute it by other operators", "Compute spectra before the network"
LACKS = {
    "Erfc": "Write an exact GELU as 0.5 * x * (1 + erf(x / sqrt(2))), as zoo's activations do",
    "Erfinv": OTHERS,
    "Qr": OTHERS,
    "Svd": OTHERS,
    "FFT": BEFORE,
    "RFFT": BEFORE,
    "Complex": "Compute with real numbers",
    LISTS: "Use attention or convolutions, or saved_model and tflite, which have recurrent layers",
}


def gaps(source: Source, _: FormatRequest) -> Iterator[str]:
    """Transposed convolutions whose stride is larger than their kernel, of which ONNX has no valid form."""
    for layer in layers_under(source.model):
        if not isinstance(layer, (keras.layers.Conv2DTranspose, keras.layers.Conv1DTranspose)):
            continue
        if any(stride > size for stride, size in zip(layer.strides, layer.kernel_size, strict=True)):
            yield (
                "a transposed convolution leaves gaps where its stride is larger than its kernel. Received: layer "
                f"{layer.name!r} with kernel_size={layer.kernel_size}, strides={layer.strides}. Use a kernel as large"
            )


RULES = (lacking(LACKS), gaps)
