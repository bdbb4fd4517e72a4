"""Calibration: the ranges of the tensors of a float32 .tflite file, for static quantization."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.litert.file import name_of, operator_name, pack, read
from export.core.compat import calibrator, qsv_utils, recipe_manager, schema
from export.core.quiet import quiet
from zoo.common.lazy import np
from zoo.specs.tasks import task_of

if TYPE_CHECKING:
    from export.source.source import SourceModel

PIXELS = (0.0, 255.0)
# Attention scores below MASKED are masked. Masked scores must be DEPTH below all others: e^-10 is less than a hundredth
# of int8's step.
MASKED, DEPTH = -5e3, 10.0
# Outputs of one call that are inputs of another need the same range.
SHARED_RANGES = (("decode/cache", "decode/next_cache"), ("encode/memory", "decode/memory"))


def calibrate(path: Path, source: SourceModel, rules: Any, batch: int = 1) -> dict[str, Any]:
    """Return the range of every tensor over the calibration data, by tensor name.

    Args:
        path: the float32 file.
        source: its source model.
        rules: the quantizer's recipe.
        batch: the batch size of the file.
    """
    recipes = recipe_manager.RecipeManager()
    recipes.load_quantization_recipe(rules)
    with quiet():
        tool = calibrator.Calibrator(
            str(path),
            num_threads=os.cpu_count() or 1,
            mode=calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED,
            # The quantizer's default averages the ranges of the examples and clips larger values: 7 times the error.
            qsv_update_func=qsv_utils.min_max_update,
        )
        tool.calibrate({part.name: list(source.feeds(part, batch)) for part in source.parts}, recipes)
    ranges = tool.get_model_qsvs()
    if source.metadata["input"] == "image" and source.metadata["preprocessing"]:
        # The scale becomes 1: pixels pass unchanged, whatever the calibration images contain.
        _set(ranges, "image", *PIXELS)
    if task_of(source.task).generates:
        for names in SHARED_RANGES:
            _set(ranges, names, min(_low(ranges, name) for name in names), max(_high(ranges, name) for name in names))
    return ranges


def scale_ranges(ranges: dict[str, Any], margin: float) -> dict[str, Any]:
    """Return ranges multiplied by a factor."""
    return {name: {key: margin * np.asarray(value) for key, value in range_.items()} for name, range_ in ranges.items()}


def limit_masks(content: bytes, ranges: dict[str, Any]) -> bytes:
    """Raise the values of attention masks to just below the scores: 8 bits cannot hold both scores and -1e9.

    Args:
        content: a float32 file.
        ranges: the ranges of its tensors; those of masked scores are changed.

    Returns:
        The file with the new masks; masked scores still get no attention.
    """
    model = read(content)
    masked = {name for name in ranges if _low(ranges, name) <= MASKED}
    if not masked:
        return content
    depth = DEPTH
    for out, scores in _masked_sums(model, masked):
        low, high = _low(ranges, scores), _high(ranges, scores)
        # These scores have a mask already.
        low = low if scores in masked else low - DEPTH
        depth = max(depth, high - low)
        _set(ranges, (out,), low, high)
    for name in masked:
        if _low(ranges, name) <= MASKED:
            _set(ranges, (name,), -depth, _high(ranges, name))
    for buffer in _masks(model):
        buffer.data = np.maximum(np.frombuffer(bytes(buffer.data), "float32"), -depth).view(np.uint8)
    return bytes(pack(model))


def _masked_sums(model: Any, masked: set[str]) -> Iterator[tuple[str, str]]:
    """Yield the sums of scores and masks in order, each with its scores, by name."""
    sums: set[str] = set()
    for graph in model.subgraphs:
        for operator in graph.operators:
            out = name_of(graph.tensors[operator.outputs[0]])
            if operator_name(model, operator) == "ADD" and out in masked:
                inputs = [name_of(graph.tensors[i]) for i in operator.inputs]
                sums.add(out)
                yield out, next(name for name in inputs if name not in masked or name in sums)


def _masks(model: Any) -> list[Any]:
    """Return the buffers of constant masks."""
    used = {t.buffer for graph in model.subgraphs for t in graph.tensors if t.type == schema.TensorType.FLOAT32}
    buffers = [model.buffers[i] for i in sorted(used)]
    buffers = [buffer for buffer in buffers if buffer.data is not None and len(buffer.data)]
    return [buffer for buffer in buffers if np.frombuffer(bytes(buffer.data), "float32").min() <= MASKED]


def _low(ranges: dict[str, Any], name: str) -> float:
    return float(np.min(ranges[name]["min"]))


def _high(ranges: dict[str, Any], name: str) -> float:
    return float(np.max(ranges[name]["max"]))


def _set(ranges: dict[str, Any], names: Any, low: float, high: float) -> None:
    """Set the range of tensors."""
    for name in [names] if isinstance(names, str) else names:
        for key, value in (("min", low), ("max", high)):
            ranges[name][key] = np.full_like(ranges[name][key], value)
