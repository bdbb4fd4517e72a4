"""Ranges of the activations of a float ONNX model by a calibration method, from histograms of their values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.onnx.external import save
from export.backends.onnx.runtime import session_options
from export.quantization.ranges import Histogram, Range, choose_ranges
from zoo.common.lazy import LazyModule

if TYPE_CHECKING:
    from onnx import ModelProto

onnx = LazyModule("onnx")
ort = LazyModule("onnxruntime")

Feeds = Callable[[], Iterator[dict[str, Any]]]  # returns calibration data, in batches by input


def activation_ranges(
    model: ModelProto, feeds: Feeds, kinds: Collection[str], folder: Path
) -> Callable[[str], dict[str, Range]]:
    """Return a function from a calibration method to the ranges of activations by name.

    Args:
        model: the float model.
        feeds: returns its calibration data; called twice.
        kinds: the operators with quantized inputs and outputs.
        folder: for a temporary file.
    """
    names = _activations(model, kinds)
    session = session_of(model, names, folder)
    bounds: dict[str, Range] = dict.fromkeys(names, (0.0, 0.0))
    for feed in feeds():
        for name, values in zip(names, session.run(names, feed), strict=True):
            low, high = bounds[name]
            bounds[name] = min(low, float(values.min())), max(high, float(values.max()))
    histograms = {name: Histogram.over(found) for name, found in bounds.items()}
    for feed in feeds():
        for name, values in zip(names, session.run(names, feed), strict=True):
            histograms[name].add(values)
    return lambda method: choose_ranges(histograms, method)


def _activations(model: ModelProto, kinds: Collection[str]) -> list[str]:
    """Return the names of the float tensors around operators, except constants and inputs."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    known = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.input, *inferred.output)}
    # Inputs have whole numbers, or values that are normalized before the first layer.
    given = {value.name for value in (*model.graph.initializer, *model.graph.input)}
    around = [name for node in model.graph.node if node.op_type in kinds for name in (*node.input, *node.output)]
    floats = [name for name in around if known.get(name) == onnx.TensorProto.FLOAT and name not in given]
    return list(dict.fromkeys(floats))


def session_of(model: ModelProto, names: Collection[str], folder: Path) -> Any:
    """Return a session whose outputs are the named tensors."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    path = folder / "probe.onnx"
    save(probe, path, False)
    return ort.InferenceSession(str(path), session_options(None), providers=["CPUExecutionProvider"])
