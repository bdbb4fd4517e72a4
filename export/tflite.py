"""LiteRT (.tflite): float32, float16 weights, dynamic int8 and static int8, all with batch 1 and builtin operators.

The float32 file is converted once; LiteRT Quantizer makes the others from it. A network that writes sequences is one
file with the signatures `encode` and `decode`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export._format import Tolerance, Way, register
from export._litert import LiteRuntime, LiteWriter
from export._litert_file import finish, outputs_of, refuse_float
from export._litert_ranges import calibrate, limit_masks
from export._quiet import quiet
from zoo._errors import UnsupportedExport
from zoo._lazy import LazyModule, tf

if TYPE_CHECKING:
    from export._source import Part, Source

convert_phase = LazyModule("tensorflow.lite.python.convert_phase")
qtyping = LazyModule("litert_quantizer.qtyping", "litert-quantizer")
quantizer = LazyModule("litert_quantizer.quantizer", "litert-quantizer")
recipe = LazyModule("litert_quantizer.recipe", "litert-quantizer")


def write(source: Source, path: Path) -> None:
    """Write a float32 .tflite with batch 1 and the signature `serving_default`, or one for each part.

    Args:
        source: what to export.
        path: file to write.

    Raises:
        UnsupportedExport: the model has an operator that is not among LiteRT's builtin ones.
    """
    module = tf.Module()
    module.weights = [variable.value for variable in source.model.variables]
    with quiet():
        converter = tf.lite.TFLiteConverter.from_concrete_functions(list(map(_trace, source.parts)), module)
        try:
            content = converter.convert()
        except convert_phase.ConverterError as error:
            raise UnsupportedExport(
                "LiteRT needs builtin operators only. "
                f"Received: operators={_foreign_operators(str(error))}. Write the layer with operators that LiteRT has."
            ) from error
    finish(content, source.metadata, path)


def write_fp16(source: Source, path: Path) -> None:
    """Write a .tflite whose weights are float16 and whose arithmetic is float32, half the size.

    Args:
        source: what to export.
        path: file to write.
    """
    weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=weights,
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    tool = quantizer.Quantizer(source.shared("tflite"))
    tool.update_quantization_recipe(
        ".*", qtyping.TFLOperationName.ALL_SUPPORTED, config, quantizer.AlgorithmName.FLOAT_CASTING
    )
    for rule in map(_left_float, _spared(source)):
        tool.update_quantization_recipe(rule["regex"], rule["operation"], None, rule["algorithm_key"])
    finish(_quantize(tool), source.metadata, path)


def write_dynamic(source: Source, path: Path) -> None:
    """Write a .tflite whose weights are int8 by channel; the runtime quantizes activations as it goes.

    Args:
        source: what to export.
        path: file to write.
    """
    rules = [*recipe.dynamic_wi8_afp32(), *map(_left_float, _spared(source))]
    tool = quantizer.Quantizer(source.shared("tflite"), rules)
    finish(_quantize(tool), source.metadata, path)


def write_int8(source: Source, path: Path) -> None:
    """Write a .tflite of int8 tensors only, input and output included, with int8 weights by channel.

    Rows of a table enter as float32; see `_spared`.

    Args:
        source: what to export; its `calibration` gives the ranges of the activations.
        path: file to write.

    Raises:
        UnsupportedExport: the model has an operator that LiteRT cannot run in int8.
    """
    floating, spared = source.shared("tflite"), _spared(source)
    rules = [*recipe.static_wi8_ai8(), *map(_left_float, spared)]
    rules += [_left_float("", "INPUT")] if spared else []
    ranges = calibrate(floating, source, rules)
    content = limit_masks(floating.read_bytes(), ranges)
    content = _quantize(quantizer.Quantizer(bytearray(content), rules), ranges)
    refuse_float(content, spared)
    finish(content, source.metadata, path)


def _spared(source: Source) -> tuple[str, ...]:
    """Return the names of what the first layer gives to rows of a table, which computes in float32 in every variant.

    One scale for columns that differ in their ranges would leave nothing of the smaller ones; and the layer has taken
    in what scales them.
    """
    if "tabular" not in source.metadata:
        return ()
    return outputs_of(source.shared("tflite").read_bytes(), source.metadata["input"])


def _left_float(output: str, operation: str = "*") -> dict[str, Any]:
    """Return the quantizer's rule that leaves an operator as it is, told by the name of its output."""
    return {"regex": re.escape(output), "operation": operation, "algorithm_key": "no_quantize", "op_config": {}}


def _trace(part: Part) -> Any:
    """Return a part as a concrete function of one example; a converter of several calls their signatures by name."""
    specs = {name: tf.TensorSpec((1, *shape), dtype, name) for name, (shape, dtype) in part.inputs.items()}

    def serve(**values: Any) -> dict[str, Any]:
        return part(**values)

    serve.__name__ = part.name
    return tf.function(serve, autograph=False).get_concrete_function(**specs)


def _foreign_operators(message: str) -> str:
    """Return the operators that the converter's message complains about, or its first line."""
    named = re.findall(r"(?:TF Select|Flex|Custom) ops: (.+)", message)
    return ", ".join(named) or message.strip().partition("\n")[0]


def _quantize(tool: Any, ranges: dict[str, Any] | None = None) -> bytes:
    """Return the quantized file's content."""
    with quiet():
        result = tool.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


FLOAT = Tolerance(relative=1e-4, agreement=1.0, drop=0.0)
HALF = Tolerance(relative=1e-2, agreement=0.995, drop=0.002)
# The relative bound only catches a broken file, for one example in a thousand is off by a quarter where attention is
# undecided; agreement and accuracy are what int8 is judged by.
INTEGER = Tolerance(relative=0.5, agreement=0.97, drop=0.006)
# A token for which attention went elsewhere has other logits altogether; agreement says how many may.
WRITTEN = {FLOAT: FLOAT, HALF: HALF, INTEGER: dataclasses.replace(INTEGER, relative=1.0)}


def _register(name: str, writer: Callable[[Source, Path], None], tolerance: Tolerance, summary: str) -> None:
    file = "model.tflite"
    way = Way(file, writer, LiteWriter, WRITTEN[tolerance])
    register(name, file=file, write=writer, load=LiteRuntime, tolerance=tolerance, summary=summary, generate=way)


_register("tflite", write, FLOAT, "LiteRT, float32, batch 1")
_register("tflite_fp16", write_fp16, HALF, "LiteRT, float16 weights and float32 arithmetic, half the size")
_register(
    "tflite_dynamic",
    write_dynamic,
    INTEGER,
    "LiteRT, int8 weights by channel, activations quantized as it runs, float32 in and out",
)
_register(
    "tflite_int8",
    write_int8,
    INTEGER,
    "LiteRT, int8 weights by channel and int8 activations, calibrated; int8 (or int32 ids) in and int8 out",
)
