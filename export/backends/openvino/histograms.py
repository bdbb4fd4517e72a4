"""Narrower ranges for the activations of a quantized OpenVINO model, from the histograms of their values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from export.backends.openvino.runtime import EXTRA, silent
from export.quantization.options import MINMAX
from export.quantization.ranges import Histogram, choose_range
from zoo.common.lazy import LazyModule, np

openvino = LazyModule("openvino", "openvino", EXTRA)

BOUNDS = (1, 2, 3, 4)  # inputs of FakeQuantize: low and high, before and after


def tighten(model: Any, examples: Sequence[dict[str, Any]], method: str) -> None:
    """Replace the ranges of activations by those of a calibration method.

    Args:
        model: an openvino.Model with FakeQuantize operators at the whole ranges, which is changed.
        examples: calibration data.
        method: one of `export.quantization.ranges.METHODS`.
    """
    if method == MINMAX:
        return
    nodes = _quantizers(model)
    histograms = [Histogram.over((_bound(node, 1), _bound(node, 2))) for node in nodes]
    for values in _inputs_of(model, examples):
        for histogram, found in zip(histograms, values, strict=True):
            histogram.add(found)
    for node, histogram in zip(nodes, histograms, strict=True):
        low, high = _on_grid(choose_range(histogram, method), _bound(node, 1), _bound(node, 2))
        for place, value in zip(BOUNDS, (low, high, low, high), strict=True):
            constant = openvino.opset13.constant(np.full(node.input_value(place).shape, value, "float32"))
            node.input(place).replace_source_output(constant.output(0))


def _quantizers(model: Any) -> list[Any]:
    """Return the FakeQuantize operators of activations, which have one range."""
    found = [node for node in model.get_ordered_ops() if node.get_type_name() == "FakeQuantize"]
    found = [node for node in found if node.input_value(0).get_node().get_type_name() != "Constant"]
    return [node for node in found if math.prod(node.input_value(1).shape) == 1]


def _bound(node: Any, place: int) -> float:
    return float(np.asarray(node.input_value(place).get_node().get_data()).ravel()[0])


def _inputs_of(model: Any, examples: Sequence[dict[str, Any]]) -> Any:
    """Yield the inputs of the quantizers for each example."""
    copy = model.clone()
    copy.add_outputs([node.input_value(0) for node in _quantizers(copy)])
    first = len(model.outputs)
    with silent():
        request = openvino.compile_model(copy, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    for example in examples:
        outputs = request.infer(example)
        yield [outputs[i] for i in range(first, len(outputs))]


def _on_grid(found: tuple[float, float], low: float, high: float) -> tuple[float, float]:
    """Return a range with 0 on its grid: of the same symmetry as the one from `low` to `high`."""
    if low < 0 < high and abs(low + high) <= 0.02 * high:
        largest = max(-found[0], found[1])
        return largest * low / high, largest
    step = max(found[1] - found[0], 1e-30) / 255
    zero = round(-found[0] / step)
    return -zero * step, (255 - zero) * step
