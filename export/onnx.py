"""ONNX, with float32 or int8 weights and activations, run in ONNX Runtime.

The conversion keeps the weights out of TensorFlow's graph: they enter it as inputs and become initializers
afterwards, because freezing and optimizing a graph copies every weight it holds several times.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export import _onnx_graph as passes
from export._format import Tolerance, Way, register
from export._onnx_fuse import divide_before_erf, fuse_layer_norms
from export._onnx_session import FILES, OnnxRuntime, OnnxWriter, options
from export._quiet import quiet
from zoo._lazy import LazyModule, keras, np, tf

if TYPE_CHECKING:
    from onnx import ModelProto

    from export._source import Part, Source

onnx = LazyModule("onnx")
ort = LazyModule("onnxruntime")
tf2onnx = LazyModule("tf2onnx")

OPSET = 17  # the newest whose reductions state their axes as attributes, which the passes can read
# Left in float32: operators that lose accuracy in 8 bits, or whose conversions cost more than they save.
QUANTIZED = (
    "Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "LeakyRelu", "MaxPool", "AveragePool",
    "GlobalAveragePool", "Concat", "Pad", "Resize", "Flatten", "Reshape", "Squeeze", "Transpose",
)  # fmt: skip
CALIBRATED = 8  # examples at once, for all activations of a batch are kept


def write(source: Source, path: Path) -> None:
    """Write float32 ONNX with a free batch axis named "batch" and standard operators only.

    Args:
        source: what to export.
        path: file to write; the folder of a network that writes sequences.

    Raises:
        UnsupportedExport: the model has an operator that ONNX lacks.
    """
    for part, file in _files(source, path):
        with quiet():
            model, ranks = _convert(part, source.metadata["model"])
        passes.check(model)
        passes.name_batch(model)
        model = _tidy(model, file)
        fuse_layer_norms(model, ranks)
        divide_before_erf(model)
        passes.drop_unused(model)
        _finish(model, source, file)


def write_int8(source: Source, path: Path) -> None:
    """Write ONNX whose weights are int8 by channel and whose activations are uint8, as Q/DQ pairs.

    Args:
        source: what to export; its calibration data gives the ranges of the activations.
        path: file to write; the folder of a network that writes sequences.

    Raises:
        UnsupportedExport: the model has an operator that ONNX lacks.
    """
    floating = dict(_files(source, source.shared("onnx")))
    for part, file in _files(source, path):
        model = onnx.load(str(floating[part]))
        passes.convolve_batch_norms(model)
        passes.drop_unused(model)
        model = _quantize(model, source.feeds(part, CALIBRATED), file.parent)
        passes.keep_logits_float(model)
        passes.drop_unused(model)
        _finish(model, source, file)


def write_dynamic(source: Source, path: Path) -> None:
    """Write ONNX whose matrix products have int8 weights by channel; the runtime quantizes activations as it goes.

    Convolutions stay float32: ONNX Runtime's dynamic ones took ten times as long as those in a ResNet-50. Activations
    have one range for a whole batch, so that an answer depends a little on what else is asked at once.

    Args:
        source: what to export.
        path: file to write; the folder of a network that writes sequences.

    Raises:
        UnsupportedExport: the model has an operator that ONNX lacks.
    """
    floating = dict(_files(source, source.shared("onnx")))
    for part, file in _files(source, path):
        with _quantizing(onnx.load(str(floating[part])), file.parent) as (tool, given, quantized):
            tool.quantize_dynamic(
                given,
                quantized,
                op_types_to_quantize=["MatMul", "Gemm", "Gather"],
                weight_type=tool.QuantType.QInt8,
                per_channel=True,
                extra_options={"MatMulConstBOnly": True},
            )
            model = onnx.load(quantized)
        passes.drop_unused(model)
        _finish(model, source, file)


def _files(source: Source, path: Path) -> Iterator[tuple[Part, Path]]:
    """Yield the parts of a model, each with its file."""
    for part in source.parts:
        yield part, path / FILES[part.name] if len(source.parts) > 1 else path


def _convert(part: Part, name: str) -> tuple[ModelProto, dict[str, int]]:
    """Return a part as tf2onnx writes it, without its optimizers, with the weights put back; and its tensors' ranks."""
    function, weights = _trace(part)
    given, out = ([f"{name}:0" for name in names] for names in ((*part.inputs, *weights), part.outputs))
    renamed = {tensor: tensor.removesuffix(":0") for tensor in (*given, *out)}
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(function.graph.as_graph_def(), name="")
        converted = tf2onnx.tfonnx.process_tf_graph(
            graph, True, opset=OPSET, input_names=given, output_names=out, tensors_to_rename=renamed
        )
    model = tf2onnx.optimizer.optimize_graph(converted, optimizers={}).make_model(name)
    ranks = {name: converted.get_rank(name) for node in converted.get_nodes() for name in node.output}
    passes.pool_channels_first(model, {name for name, rank in ranks.items() if rank == 4})
    passes.restore_weights(model, weights)
    return model, {name: rank for name, rank in ranks.items() if rank}


def _trace(part: Part) -> tuple[Any, dict[str, np.ndarray]]:
    """Return a part as a function of its inputs and its weights, and the weights by input name."""
    variables = {f"weight_{i}": variable for i, variable in enumerate(part.model.variables)}
    names = list(part.inputs)

    @tf.function(autograph=False)
    def function(*tensors: Any) -> Any:
        given, weights = tensors[: len(names)], tensors[len(names) :]
        with keras.StatelessScope(state_mapping=list(zip(variables.values(), weights, strict=True))):
            found = part(**dict(zip(names, given, strict=True)))
        return [tf.identity(found[name], name=name) for name in part.outputs]

    inputs = [tf.TensorSpec((None, *shape), dtype, name=name) for name, (shape, dtype) in part.inputs.items()]
    specs = [tf.TensorSpec(v.shape, v.dtype, name=k) for k, v in variables.items()]
    arrays = {k: keras.ops.convert_to_numpy(v) for k, v in variables.items()}
    return function.get_concrete_function(*inputs, *specs), arrays


def _tidy(model: ModelProto, path: Path) -> ModelProto:
    """Return the model after ONNX Runtime's basic passes, the ones that do not depend on the hardware."""
    settings = options(None)
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    settings.optimized_model_filepath = str(path)
    ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return onnx.load(str(path))


def _finish(model: ModelProto, source: Source, path: Path) -> None:
    """Check the model and write it with the metadata, naming only the operator sets it uses."""
    opsets = [opset for opset in model.opset_import if opset.domain in passes.STANDARD_DOMAINS]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    onnx.helper.set_model_props(model, {"zoo": json.dumps(source.metadata)})
    passes.name_batch(model)
    passes.check(model, full=True)
    onnx.save(model, str(path))


@contextlib.contextmanager
def _quantizing(model: ModelProto, folder: Path) -> Iterator[tuple[Any, str, str]]:
    """Give the quantizer, a file with the model, and one to quantize it to."""
    with quiet(), tempfile.TemporaryDirectory(dir=folder) as place:
        onnx.save(model, f"{place}/float.onnx")
        yield importlib.import_module("onnxruntime.quantization"), f"{place}/float.onnx", f"{place}/int8.onnx"


def _quantize(model: ModelProto, feeds: Iterator[dict[str, np.ndarray]], folder: Path) -> ModelProto:
    """Return the model with Q/DQ pairs at the ranges seen on the calibration data."""
    # Attention loses accuracy in 8 bits and gains no time between its products: there those with weights alone are
    # quantized, and give float32.
    attention = any(node.op_type == "Softmax" for node in model.graph.node)
    left = {"OpTypesToExcludeOutputQuantization": list(passes.WEIGHTED)} if attention else {}
    with _quantizing(model, folder) as (tool, floating, quantized):
        tool.quantize_static(
            floating,
            quantized,
            _reader(feeds),
            quant_format=tool.QuantFormat.QDQ,
            op_types_to_quantize=list(passes.WEIGHTED if attention else QUANTIZED),
            # uint8 with int8 is what ONNX Runtime has its fastest x86 kernels for.
            activation_type=tool.QuantType.QUInt8,
            weight_type=tool.QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=[*passes.normalization(model), *passes.products(model)],
            calibrate_method=tool.CalibrationMethod.MinMax,
            extra_options=left,
        )
        return onnx.load(quantized)


def _reader(feeds: Iterator[dict[str, np.ndarray]]) -> Any:
    """Return a calibration reader of batches."""
    base = importlib.import_module("onnxruntime.quantization").CalibrationDataReader

    class Reader(base):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(feeds, None)

    return Reader()


FLOAT = Tolerance(relative=1e-4, agreement=1.0, drop=0.0)
# The relative bound only catches a broken file, for one example in a thousand is off by a quarter where attention is
# undecided; agreement and accuracy are what int8 is judged by.
INTEGER = Tolerance(relative=0.5, agreement=0.97, drop=0.006)
# A token for which attention went elsewhere has other logits altogether; agreement says how many may.
WRITTEN = {FLOAT: FLOAT, INTEGER: dataclasses.replace(INTEGER, relative=1.0)}


def _register(name: str, writer: Callable[[Source, Path], None], tolerance: Tolerance, summary: str) -> None:
    way = Way("", writer, OnnxWriter, WRITTEN[tolerance])
    register(
        name, file="model.onnx", write=writer, load=OnnxRuntime, tolerance=tolerance, summary=summary, generate=way
    )


_register(
    "onnx",
    write,
    FLOAT,
    "ONNX, float32, free batch; runs in ONNX Runtime, OpenVINO, TensorRT and others",
)
_register(
    "onnx_int8",
    write_int8,
    INTEGER,
    "ONNX, int8 weights by channel and uint8 activations (Q/DQ), calibrated; float32 in and out",
)
_register(
    "onnx_dynamic",
    write_dynamic,
    INTEGER,
    "ONNX for transformers, int8 weights by channel in matrix products, activations quantized as it runs",
)
