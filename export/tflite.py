"""LiteRT (.tflite): float32, float16 weights, dynamic int8 and static int8, all with batch 1 and builtin operators.

The float32 file is converted once; LiteRT Quantizer makes the others from it.
"""

from __future__ import annotations

import functools
import json
import mmap
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export._format import Runtime, Tensor, Tolerance, register
from export._quiet import quiet
from zoo._errors import UnsupportedExport
from zoo._lazy import LazyModule, np, quiet_libraries, tf

if TYPE_CHECKING:
    from export._source import Source

flatbuffer_utils = LazyModule("ai_edge_litert.tools.flatbuffer_utils", "ai-edge-litert")
interpreter = LazyModule("ai_edge_litert.interpreter", "ai-edge-litert")
convert_phase = LazyModule("tensorflow.lite.python.convert_phase")
schema = LazyModule("ai_edge_litert.schema_py_generated", "ai-edge-litert")
calibrator = LazyModule("litert_quantizer.calibrator", "litert-quantizer")
qsv_utils = LazyModule("litert_quantizer.utils.qsv_utils", "litert-quantizer")
qtyping = LazyModule("litert_quantizer.qtyping", "litert-quantizer")
quantizer = LazyModule("litert_quantizer.quantizer", "litert-quantizer")
recipe = LazyModule("litert_quantizer.recipe", "litert-quantizer")
recipe_manager = LazyModule("litert_quantizer.recipe_manager", "litert-quantizer")

SIGNATURE = "serving_default"
METADATA = b"zoo"
PIXELS = (0.0, 255.0)
CASTS = {"QUANTIZE", "DEQUANTIZE"}  # they stand around an operator that stayed in float32, and are no cause


def write(source: Source, path: Path) -> None:
    """Write a float32 .tflite with batch 1 and the signature `serving_default`.

    Args:
        source: what to export.
        path: file to write.

    Raises:
        UnsupportedExport: the model has an operator that is not among LiteRT's builtin ones.
    """
    module = tf.Module()
    module.weights = [variable.value for variable in source.model.variables]
    with quiet():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([_trace(source)], module)
        try:
            content = converter.convert()
        except convert_phase.ConverterError as error:
            raise UnsupportedExport(
                "LiteRT needs builtin operators only. "
                f"Received: operators={_foreign_operators(str(error))}. Write the layer with operators that LiteRT has."
            ) from error
    _finish(content, source.metadata, path)


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
    _finish(_quantize(tool), source.metadata, path)


def write_dynamic(source: Source, path: Path) -> None:
    """Write a .tflite whose weights are int8 by channel; the runtime quantizes activations as it goes.

    Args:
        source: what to export.
        path: file to write.
    """
    tool = quantizer.Quantizer(source.shared("tflite"), recipe.dynamic_wi8_afp32())
    _finish(_quantize(tool), source.metadata, path)


def write_int8(source: Source, path: Path) -> None:
    """Write a .tflite of int8 tensors only, input and output included, with int8 weights by channel.

    Args:
        source: what to export; its `calibration` gives the ranges of the activations.
        path: file to write.

    Raises:
        UnsupportedExport: the model has an operator that LiteRT cannot run in int8.
    """
    floating = source.shared("tflite")
    tool = quantizer.Quantizer(floating, recipe.static_wi8_ai8())
    content = _quantize(tool, _calibrate(floating, source))
    _refuse_float(content)
    _finish(content, source.metadata, path)


def _trace(source: Source) -> Any:
    """Return the model as a concrete function of one image."""
    model = source.model
    spec = tf.TensorSpec((1, *model.inputs[0].shape[1:]), tf.float32, name=source.metadata["input"])

    @tf.function(autograph=False, input_signature=[spec])
    def serve(inputs: Any) -> dict[str, Any]:
        return {source.metadata["output"]: model(inputs, training=False)}

    return serve.get_concrete_function()


def _foreign_operators(message: str) -> str:
    """Return the operators that the converter's message complains about, or its first line."""
    named = re.findall(r"(?:TF Select|Flex|Custom) ops: (.+)", message)
    return ", ".join(named) or message.strip().partition("\n")[0]


def _calibrate(floating: Path, source: Source) -> dict[str, Any]:
    """Return the range of every tensor over the calibration data, by tensor name."""
    name = source.metadata["input"]
    samples = [{name: source.calibration[i : i + 1]} for i in range(len(source.calibration))]
    recipes = recipe_manager.RecipeManager()
    recipes.load_quantization_recipe(recipe.static_wi8_ai8())
    with quiet():
        tool = calibrator.Calibrator(
            str(floating),
            num_threads=os.cpu_count() or 1,
            mode=calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED,
            # The quantizer's own way averages the images' ranges and clips what goes beyond: 7 times the error.
            qsv_update_func=qsv_utils.min_max_update,
        )
        tool.calibrate({SIGNATURE: samples}, recipes)
    ranges = tool.get_model_qsvs()
    if name == "image":
        # The scale is 1 then and pixels pass unchanged, whatever values the calibration images happen to have.
        ranges[name] = {k: np.full_like(ranges[name][k], v) for k, v in zip(("min", "max"), PIXELS, strict=True)}
    return ranges


def _quantize(tool: Any, ranges: dict[str, Any] | None = None) -> bytes:
    """Return the quantized file's content."""
    with quiet():
        result = tool.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def _refuse_float(content: bytes) -> None:
    """Raise UnsupportedExport if an operator still works on float32."""
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    floats = set()
    for graph in model.subgraphs:
        for operator in graph.operators:
            used = [graph.tensors[i] for i in (*operator.inputs, *operator.outputs) if i >= 0]
            if any(tensor.type == schema.TensorType.FLOAT32 for tensor in used):
                floats.add(flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex))
    if floats:
        raise UnsupportedExport(
            "tflite_int8 needs operators that LiteRT runs in int8. "
            f"Received: operators={', '.join(sorted(floats - CASTS) or floats)}. Use tflite_dynamic, or other layers."
        )


def _finish(content: bytes, metadata: dict[str, Any], path: Path) -> None:
    """Write the file with the metadata in it and its input and output tensors named after the signature."""
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    written = json.dumps(metadata).encode()
    entry = next((entry for entry in model.metadata or [] if entry.name == METADATA), None)
    if entry is None:  # a quantized file has it from its float one
        entry = schema.MetadataT(METADATA, len(model.buffers))
        model.buffers.append(schema.BufferT())
        model.metadata = [*(model.metadata or []), entry]
    model.buffers[entry.buffer].data = np.frombuffer(written, np.uint8)
    for buffer in model.buffers:
        if isinstance(buffer.data, (bytes, bytearray)):
            buffer.data = np.frombuffer(buffer.data, np.uint8)  # bytes are packed one by one, in Python
    graph = model.subgraphs[0]
    for item in (*model.signatureDefs[0].inputs, *model.signatureDefs[0].outputs):
        graph.tensors[item.tensorIndex].name = item.name
    path.write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))


class LiteRuntime(Runtime):
    """A .tflite file in LiteRT on the processor, with the XNNPACK delegate that LiteRT applies by itself.

    Args:
        path: the file.
        threads: threads to use, LiteRT's choice by default.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        with quiet_libraries():
            self._interpreter = interpreter.Interpreter(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        names = self._interpreter.get_signature_list()[SIGNATURE]
        (self._input,), (self._output,) = (
            self._interpreter.get_input_details(),
            self._interpreter.get_output_details(),
        )
        self.inputs = (_tensor(self._input, names["inputs"][0]),)
        self.outputs = (_tensor(self._output, names["outputs"][0]),)
        self.batch = self.inputs[0].shape[0]
        self.metadata = _read_metadata(path)
        self._seen: np.ndarray | None = None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return float32 logits (n, classes) of raw values (n, *shape), one image after the other."""
        return np.concatenate([self._logits(images[i : i + 1]) for i in range(len(images))])

    def step(self, images: np.ndarray) -> None:
        """Run once on raw float32 values (1, *shape); the same array again is not converted again."""
        if images is not self._seen:
            self._interpreter.set_tensor(self._input["index"], _to_stored(images, self.inputs[0]))
            self._seen = images
        self._interpreter.invoke()

    def _logits(self, image: np.ndarray) -> np.ndarray:
        """Return the logits of one image."""
        self._seen = None
        self._interpreter.set_tensor(self._input["index"], _to_stored(image, self.inputs[0]))
        self._interpreter.invoke()
        return _to_real(self._interpreter.get_tensor(self._output["index"]), self.outputs[0])


def _tensor(detail: dict[str, Any], name: str) -> Tensor:
    """Return what LiteRT says about an input or output."""
    scale, zero_point = detail["quantization"]
    dtype, shape = np.dtype(detail["dtype"]).name, tuple(int(size) for size in detail["shape"])
    return Tensor(name, shape, dtype, *((float(scale), int(zero_point)) if scale else ()))


def _to_stored(values: np.ndarray, tensor: Tensor) -> np.ndarray:
    """Return real values as the tensor stores them: v / scale + zero point, rounded and clipped."""
    if tensor.scale is None:
        return np.asarray(values, tensor.dtype)
    limits = np.iinfo(tensor.dtype)
    stored = np.rint(np.asarray(values, np.float32) / tensor.scale) + tensor.zero_point
    return np.clip(stored, limits.min, limits.max).astype(tensor.dtype)


def _to_real(stored: np.ndarray, tensor: Tensor) -> np.ndarray:
    """Return float32 values of what the tensor stores: (v - zero point) * scale."""
    if tensor.scale is None:
        return stored.astype(np.float32)
    return (stored.astype(np.float32) - tensor.zero_point) * np.float32(tensor.scale)


def _read_metadata(path: Path) -> dict[str, Any] | None:
    """Return what `_finish` put into the file, without reading the rest of it."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        model = schema.Model.GetRootAs(content, 0)
        entries = (model.Metadata(i) for i in range(model.MetadataLength()))
        buffers = [entry.Buffer() for entry in entries if entry.Name() == METADATA]
        if not buffers:
            return None
        return json.loads(model.Buffers(buffers[0]).DataAsNumpy().tobytes())


FLOAT = Tolerance(relative=1e-4, agreement=1.0, drop=0.0)
HALF = Tolerance(relative=1e-2, agreement=0.995, drop=0.002)
# The relative bound only catches a broken file; agreement and accuracy are what int8 is judged by.
INTEGER = Tolerance(relative=0.25, agreement=0.97, drop=0.006)

_register = functools.partial(register, file="model.tflite", load=LiteRuntime)
_register("tflite", write=write, tolerance=FLOAT, summary="LiteRT, float32, batch 1")
_register(
    "tflite_fp16",
    write=write_fp16,
    tolerance=HALF,
    summary="LiteRT, float16 weights and float32 arithmetic, half the size",
)
_register(
    "tflite_dynamic",
    write=write_dynamic,
    tolerance=INTEGER,
    summary="LiteRT, int8 weights by channel, activations quantized as it runs, float32 in and out",
)
_register(
    "tflite_int8",
    write=write_int8,
    tolerance=INTEGER,
    summary="LiteRT, int8 weights by channel and int8 activations, calibrated; int8 in and out",
)
