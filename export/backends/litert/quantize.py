"""Smaller .tflite files made of the float32 one, by LiteRT Quantizer."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.litert.calibration import calibrate, limit_masks, widen
from export.backends.litert.file import finish, outputs_of, refuse_float, tensors_of
from export.backends.litert.io_dtypes import retype
from export.backends.litert.options import FloatOptions, IntegerOptions, LiteOptions, WideOptions
from export.core.options import described
from export.core.quiet import quiet
from zoo.common.lazy import LazyModule

if TYPE_CHECKING:
    from export.source.source import Source

qtyping = LazyModule("litert_quantizer.qtyping", "litert-quantizer")
quantizer = LazyModule("litert_quantizer.quantizer", "litert-quantizer")
recipe = LazyModule("litert_quantizer.recipe", "litert-quantizer")


def write_weights(source: Source, path: Path, options: FloatOptions, rules: list[dict[str, Any]]) -> None:
    """Write a .tflite with smaller weights, whose inputs and outputs stay as they are.

    Args:
        source: what to export.
        path: file to write.
        options: what was asked for.
        rules: the quantizer's recipe.
    """
    rules = [*rules, *map(left_float, excluded(source, options))]
    content = run(quantizer.Quantizer(source.shared("tflite", options), rules))
    finish(content, described(source.metadata, options), path)


@dataclasses.dataclass(frozen=True)
class Static:
    """How an integer file is made.

    Args:
        name: the format's, for messages.
        rules: the quantizer's recipe.
        rewrite: changes the content of the float32 file before.
        margin: how much wider than seen a range is, so that what is larger is not cut off; each doubling costs a bit.
        floating: kinds of operators that stay in float32.
        headroom: how much wider again those of the answers are: elsewhere a cut is one error among many, there it makes
            the likeliest classes equal.
    """

    name: str
    rules: list[dict[str, Any]]
    rewrite: Callable[[bytes], bytes] = bytes
    margin: float = 1.0
    floating: tuple[str, ...] = ()
    headroom: float = 1.1


def write_static(source: Source, path: Path, options: IntegerOptions | WideOptions, how: Static) -> None:
    """Write a .tflite of integer tensors only, with the ranges that the calibration data has.

    Rows of a table enter as float32; see `excluded`.

    Args:
        source: what to export; its `calibration` gives the ranges of the activations.
        path: file to write.
        options: what was asked for.
        how: how it is made.

    Raises:
        UnsupportedExport: the model has an operator that LiteRT cannot run in these integers.
    """
    plain = FloatOptions(batch=options.batch)
    left = excluded(source, plain)
    rules = [*how.rules, *map(left_float, left)]
    rules += [left_float("", "INPUT")] if left else []
    rules += [left_float("", kind) for kind in how.floating]
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        floating = Path(folder) / "float.tflite"
        floating.write_bytes(how.rewrite(source.shared("tflite", plain).read_bytes()))
        ranges = widen(calibrate(floating, source, rules, options.batch), how.margin)
        ranges |= widen({name: ranges[name] for name in answers(source)}, how.headroom)
        content = limit_masks(floating.read_bytes(), ranges)
    content = run(quantizer.Quantizer(bytearray(content), rules), ranges)
    refuse_float(content, [*left, *tensors_of(content, how.floating)], name=how.name)
    ship(content, source, path, options)


def answers(source: Source) -> tuple[str, ...]:
    """Return the names of the tensors with what an artifact answers: logits, or values."""
    if source.task == "generate":
        return ("decode/logits",)
    return (source.metadata["output"],)


def ship(content: bytes, source: Source, path: Path, options: IntegerOptions | WideOptions) -> None:
    """Write an integer file with the input and output that were asked for, and with its metadata."""
    if source.task != "generate":
        content = retype(content, options.input, options.output)
    finish(content, described(source.metadata, options), path)


def excluded(source: Source, options: LiteOptions) -> tuple[str, ...]:
    """Return the names of what the first layer gives to rows of a table, which computes in float32 in every variant.

    One scale for columns that differ in their ranges would leave nothing of the smaller ones; and the layer has taken
    in what scales them.
    """
    if "tabular" not in source.metadata:
        return ()
    return outputs_of(source.shared("tflite", options).read_bytes(), source.metadata["input"])


def left_float(output: str, operation: str = "*") -> dict[str, Any]:
    """Return the quantizer's rule that leaves operators as they are, told by the name of their output or their kind."""
    return {"regex": re.escape(output), "operation": operation, "algorithm_key": "no_quantize", "op_config": {}}


def run(tool: Any, ranges: dict[str, Any] | None = None) -> bytes:
    """Return the quantized file's content."""
    with quiet():
        result = tool.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)
