"""The smoothing of a transformer, chosen by what OpenVINO computes with each.

NNCF evens out the channels of a transformer before its matrix products (SmoothQuant, Xiao et al. 2022,
arXiv:2211.10438). On x86 with AVX-512 OpenVINO 2026.4 computes some of these products wrongly in int8: the
signal-to-noise ratio of a small encoder was 5 dB in batches and 16 one by one, 38 in float arithmetic, and 43 without
smoothing. Of all-MiniLM-L6-v2 it is 18 dB without, 23 with `ALPHA` and 18 with NNCF's default of 0.95.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from export.backends.openvino.runtime import EXTRA, silent
from export.quantization.write import signal_to_noise
from zoo.common.lazy import LazyModule, np

openvino = LazyModule("openvino", "openvino", EXTRA)

ALPHA, UNSMOOTHED = 0.75, -1.0
COMPARED = 16  # examples


def closest(models: Iterable[Any], exact: Any, examples: Sequence[dict[str, Any]]) -> Any:
    """Return the model whose outputs are closest to those of the float model, in batches and one by one.

    Args:
        models: quantized models.
        exact: the float model.
        examples: inputs, one example each.
    """
    examples = examples[:COMPARED]
    expected = _outputs(exact, examples)
    return max(models, key=lambda model: _worst(model, examples, expected))


def _worst(model: Any, examples: Sequence[dict[str, Any]], expected: list[Any]) -> float:
    """Return the lowest signal-to-noise ratio of an output."""
    batches = [examples]
    if all(tensor.partial_shape[0].is_dynamic for tensor in model.inputs):
        batches.append([{name: np.concatenate([one[name] for one in examples]) for name in examples[0]}])
    found = [_outputs(model, batch) for batch in batches]
    return min(signal_to_noise(*pair) for outputs in found for pair in zip(outputs, expected, strict=True))


def _outputs(model: Any, batch: Sequence[dict[str, Any]]) -> list[Any]:
    """Return the outputs for examples, joined."""
    with silent():
        compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    rows = [[np.array(values) for values in compiled(feed).values()] for feed in batch]
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]
