"""Quantized .tflite files, made from the float32 file with LiteRT Quantizer."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.litert.calibration import calibrate, limit_masks, scale_ranges
from export.backends.litert.file import CASTS, finish, operators_of, outputs_of, refuse_float, tensors_of
from export.backends.litert.histograms import tighten
from export.backends.litert.io_dtypes import retype
from export.backends.litert.options import FloatOptions, Int16Options, IntegerOptions, LiteRtOptions
from export.backends.litert.rewrite import type_unread
from export.backends.litert.runtime import LiteRtRuntime
from export.core.layer_names import layer_patterns, matching
from export.core.metadata import output_names
from export.core.options import with_options
from export.core.quiet import quiet
from export.quantization.write import Chosen, write_quantized
from zoo.common.lazy import LazyModule
from zoo.specs.tasks import task_of

if TYPE_CHECKING:
    from export.source.source import SourceModel

qtyping = LazyModule("litert_quantizer.qtyping", "litert-quantizer")
quantizer = LazyModule("litert_quantizer.quantizer", "litert-quantizer")
recipe = LazyModule("litert_quantizer.recipe", "litert-quantizer")


def write_weights(source: SourceModel, path: Path, options: FloatOptions, rules: list[dict[str, Any]]) -> None:
    """Write a .tflite with quantized weights and float inputs and outputs.

    Args:
        source: the model to convert.
        path: file to write.
        options: the format's options.
        rules: the quantizer's recipe.
    """
    rules = [*rules, *map(float_rule, tabular_outputs(source, options))]
    content = quantize(quantizer.Quantizer(source.artifact_path("tflite", options), rules))
    finish(content, with_options(source.metadata, options), path)


@dataclasses.dataclass(frozen=True)
class StaticScheme:
    """A scheme of static quantization.

    Args:
        name: the format's name, for messages.
        rules: the quantizer's recipe.
        rewrite: changes the content of the float32 file first.
        margin: factor of the calibration ranges, so that larger values are not clipped; each doubling costs one bit.
        float_operators: types of operators that stay float32.
        output_margin: additional factor of the output's range: clipped logits would make the top classes equal.
    """

    name: str
    rules: list[dict[str, Any]]
    rewrite: Callable[[bytes], bytes] = bytes
    margin: float = 1.0
    float_operators: tuple[str, ...] = ()
    output_margin: float = 1.1


def write_static(
    source: SourceModel, path: Path, options: IntegerOptions | Int16Options, scheme: StaticScheme
) -> dict[str, Any]:
    """Write a .tflite of integer tensors only, at the ranges of the calibration data.

    Tabular models take float32 columns; see `tabular_outputs`.

    Args:
        source: the model to convert; its `calibration` data gives the activation ranges.
        path: file to write.
        options: the format's options.
        scheme: the quantization scheme.

    Returns:
        How it was quantized, for the manifest.

    Raises:
        UnsupportedExport: LiteRT has no integer kernel for an operator of the model.
    """

    def write(source: SourceModel, path: Path, chosen: Chosen) -> None:
        _write_static(source, path, options, scheme, chosen)

    return write_quantized(write, LiteRtRuntime, source, path, options)


def _write_static(
    source: SourceModel, path: Path, options: IntegerOptions | Int16Options, scheme: StaticScheme, chosen: Chosen
) -> None:
    """Write a .tflite with what was chosen on the calibration data."""
    float_options = FloatOptions(batch=options.batch)
    excluded = tabular_outputs(source, float_options)
    rules = [*(scheme.rules if options.per_channel else map(per_tensor, scheme.rules)), *map(float_rule, excluded)]
    rules += [float_rule("", "INPUT")] if excluded else []
    rules += [float_rule("", kind) for kind in scheme.float_operators]
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        float_path = Path(folder) / "float.tflite"
        float_path.write_bytes(scheme.rewrite(source.artifact_path("tflite", float_options).read_bytes()))
        ranges = calibrate(float_path, source, rules, options.batch)
        tighten(ranges, float_path, source, chosen.calibration)
        ranges = scale_ranges(ranges, scheme.margin)
        ranges |= scale_ranges({name: ranges[name] for name in output_tensors(source)}, scheme.output_margin)
        content = limit_masks(float_path.read_bytes(), ranges)
    rules += excluded_rules(operators_of(content), chosen)
    content = type_unread(quantize(quantizer.Quantizer(bytearray(content), rules), ranges))
    kinds = (*scheme.float_operators, *(CASTS if chosen.excluded else ()))
    floats = [*excluded, *tensors_of(content, kinds)]
    floats += matching(operators_of(content), chosen.excluded, chosen.layers)
    refuse_float(content, floats, name=scheme.name)
    write_integer(content, source, path, options)


def excluded_rules(operators: list[str], chosen: Chosen) -> list[dict[str, Any]]:
    """Return the quantizer's rules that leave the excluded layers in float, for a file with these operators."""
    patterns = layer_patterns(operators, chosen.excluded, chosen.layers)
    return [{**float_rule(""), "regex": pattern} for pattern in patterns.values()]


def output_tensors(source: SourceModel) -> tuple[str, ...]:
    """Return the names of the tensors with logits or values."""
    if task_of(source.task).generates:
        return ("decode/logits",)
    return output_names(source.metadata)


def write_integer(content: bytes, source: SourceModel, path: Path, options: IntegerOptions | Int16Options) -> None:
    """Write an integer file with the input and output dtypes of the options, and with its metadata."""
    if not task_of(source.task).generates:
        content = retype(content, options.input, options.output)
    finish(content, with_options(source.metadata, options), path)


def tabular_outputs(source: SourceModel, options: LiteRtOptions) -> tuple[str, ...]:
    """Return the output tensors of a tabular model's first layer, which stays float32 in every quantized format.

    One scale for columns of different ranges would erase the small ones, and the layer contains their normalization.
    """
    if "tabular" not in source.metadata:
        return ()
    return outputs_of(source.artifact_path("tflite", options).read_bytes(), source.metadata["input"])


def float_rule(output: str, operation: str = "*") -> dict[str, Any]:
    """Return the quantizer's rule that leaves operators in float, by the name of their output or by their type."""
    return {"regex": re.escape(output), "operation": operation, "algorithm_key": "no_quantize", "op_config": {}}


def per_tensor(rule: dict[str, Any]) -> dict[str, Any]:
    """Return the quantizer's rule with one scale for each kernel."""
    config = rule["op_config"]
    weights = {**config["weight_tensor_config"], "granularity": "TENSORWISE"}
    return {**rule, "op_config": {**config, "weight_tensor_config": weights}}


def quantize(tool: Any, ranges: dict[str, Any] | None = None) -> bytes:
    """Run a quantizer; return the content of the quantized file."""
    with quiet():
        result = tool.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)
