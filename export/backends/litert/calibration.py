"""The ranges of the tensors of a .tflite file, which static int8 is made of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.litert.file import name_of, operator_name, pack, read
from export.core.quiet import quiet
from zoo.common.lazy import LazyModule, np

if TYPE_CHECKING:
    from export.source.source import Source

calibrator = LazyModule("litert_quantizer.calibrator", "litert-quantizer")
qsv_utils = LazyModule("litert_quantizer.utils.qsv_utils", "litert-quantizer")
recipe_manager = LazyModule("litert_quantizer.recipe_manager", "litert-quantizer")
schema = LazyModule("ai_edge_litert.schema_py_generated", "ai-edge-litert")

PIXELS = (0.0, 255.0)
# Scores below this are masked. So far below all others (e^-10 is less than a hundredth of int8's step) they need to be.
MASKED, DEPTH = -5e3, 10.0
# What comes out of one call goes into another as it is.
LINKED = (("decode/cache", "decode/next_cache"), ("encode/memory", "decode/memory"))


def calibrate(floating: Path, source: Source, rules: Any, batch: int = 1) -> dict[str, Any]:
    """Return the range of every tensor over the calibration data, by tensor name.

    Args:
        floating: the float32 file.
        source: what it was made from.
        rules: the quantizer's recipe.
        batch: examples that the file takes at a time.
    """
    recipes = recipe_manager.RecipeManager()
    recipes.load_quantization_recipe(rules)
    with quiet():
        tool = calibrator.Calibrator(
            str(floating),
            num_threads=os.cpu_count() or 1,
            mode=calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED,
            # The quantizer's own way averages the images' ranges and clips what goes beyond: 7 times the error.
            qsv_update_func=qsv_utils.min_max_update,
        )
        tool.calibrate({part.name: list(source.feeds(part, batch)) for part in source.parts}, recipes)
    ranges = tool.get_model_qsvs()
    if source.metadata["input"] == "image":
        # The scale is 1 then and pixels pass unchanged, whatever values the calibration images happen to have.
        _set(ranges, "image", *PIXELS)
    if source.task == "generate":
        for names in LINKED:
            _set(ranges, names, min(_low(ranges, name) for name in names), max(_high(ranges, name) for name in names))
    return ranges


def widen(ranges: dict[str, Any], margin: float) -> dict[str, Any]:
    """Return ranges that are wider by a factor on both sides of 0."""
    return {name: {key: margin * np.asarray(value) for key, value in found.items()} for name, found in ranges.items()}


def limit_masks(content: bytes, ranges: dict[str, Any]) -> bytes:
    """Raise what masks scores to just below them: 8 bits cannot hold both scores and next to minus infinity.

    Args:
        content: a float32 file.
        ranges: those of its tensors; changed where masks are.

    Returns:
        The file with other masks, in which masked scores still get no weight.
    """
    model = read(content)
    masked = {name for name in ranges if _low(ranges, name) <= MASKED}
    if not masked:
        return content
    depth = DEPTH
    for out, scores in _masked_sums(model, masked):
        low, high = _low(ranges, scores), _high(ranges, scores)
        # A second mask on the same scores finds them lowered already.
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
    """Yield the sums of scores and masks, each with the scores that it is made of, by name and in order."""
    sums: set[str] = set()
    for graph in model.subgraphs:
        for operator in graph.operators:
            out = name_of(graph.tensors[operator.outputs[0]])
            if operator_name(model, operator) == "ADD" and out in masked:
                given = [name_of(graph.tensors[i]) for i in operator.inputs]
                sums.add(out)
                yield out, next(name for name in given if name not in masked or name in sums)


def _masks(model: Any) -> list[Any]:
    """Return the buffers of constants that mask."""
    used = {t.buffer for graph in model.subgraphs for t in graph.tensors if t.type == schema.TensorType.FLOAT32}
    filled = [
        model.buffers[i] for i in sorted(used) if model.buffers[i].data is not None and len(model.buffers[i].data)
    ]
    return [buffer for buffer in filled if np.frombuffer(bytes(buffer.data), "float32").min() <= MASKED]


def _low(ranges: dict[str, Any], name: str) -> float:
    return float(np.min(ranges[name]["min"]))


def _high(ranges: dict[str, Any], name: str) -> float:
    return float(np.max(ranges[name]["max"]))


def _set(ranges: dict[str, Any], names: Any, low: float, high: float) -> None:
    """Set the range of tensors."""
    for name in [names] if isinstance(names, str) else names:
        for key, value in (("min", low), ("max", high)):
            ranges[name][key] = np.full_like(ranges[name][key], value)
