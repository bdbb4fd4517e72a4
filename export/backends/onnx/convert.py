"""Converts a Keras model to ONNX and writes the file.

The weights are inputs of TensorFlow's graph and become initializers afterwards: freezing and optimizing a graph copies
every weight several times.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.onnx import passes
from export.backends.onnx.external import is_external, save
from export.backends.onnx.fuse import divide_before_erf, fuse_layer_norms, scale_channels_first
from export.backends.onnx.lowering import lower
from export.backends.onnx.options import OPSET, OnnxOptions
from export.backends.onnx.runtime import FILES, session_options
from export.backends.onnx.weights import product_weights, restore_weights
from export.core.compat import tensorflow_to_onnx
from export.core.options import with_options
from export.core.quiet import quiet
from zoo.common.lazy import LazyModule, keras, tf

if TYPE_CHECKING:
    from onnx import ModelProto

    from export.source.source import Part, SourceModel

onnx = LazyModule("onnx")
ort = LazyModule("onnxruntime")

# Start of the names of outputs in TensorFlow's graph, where a layer may have the name of an output.
RESULT = "result_of_the_model_"
# Metadata keys that are also separate properties of the file: strings as they are, all others as JSON.
PROPERTIES = ("model", "task", "labels", "preprocessing", "input", "output")


def files_of(source: SourceModel, path: Path) -> Iterator[tuple[Part, Path]]:
    """Yield the parts of a model, each with its file: `path`, or files in the folder `path`."""
    for part in source.parts:
        yield part, path / FILES[part.name] if len(source.parts) > 1 else path


def convert(part: Part, name: str, folder: Path, external: bool = False) -> ModelProto:
    """Return a part in float32 in the operator set `OPSET`, simplified.

    Args:
        part: the part to convert.
        name: name of the model.
        folder: for temporary files.
        external: store the weights outside the file, as is done above two gigabytes.

    Raises:
        UnsupportedExport: ONNX lacks an operator of the model.
    """
    with quiet():
        model, shapes, weights = _from_graph(part, name)
    names = product_weights(model, weights)
    set_aside = {name: weights.pop(name) for name in names}
    restore_weights(model, weights)
    passes.flatten_reshapes(model, shapes)
    passes.check(model)
    passes.name_batch(model, weights=names)
    model = _simplify(model, folder, external)
    restore_weights(model, set_aside)
    fuse_layer_norms(model, {name: len(shape) for name, shape in shapes.items()})
    divide_before_erf(model)
    scale_channels_first(model)
    passes.drop_unused(model)
    return model


def finish(model: ModelProto, source: SourceModel, path: Path, options: OnnxOptions) -> None:
    """Check the model and write it with its options and metadata, with the operator sets that it uses only."""
    opsets = [opset for opset in model.opset_import if opset.domain in passes.STANDARD_DOMAINS]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    del model.graph.value_info[:]  # inferred again
    passes.name_batch(model, options.axis, options.batch)
    model = passes.raise_opset(model, options.opset)
    metadata = with_options(source.metadata, options)
    onnx.helper.set_model_props(model, {"zoo": json.dumps(metadata), **_properties(metadata)})
    passes.check(model)
    save(model, path, options.external)


def _properties(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata that are separate properties."""
    values = {key: metadata[key] for key in PROPERTIES if metadata.get(key) is not None}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def _from_graph(part: Part, name: str) -> tuple[ModelProto, dict[str, list[int]], dict[str, Any]]:
    """Return a part converted by tf2onnx without its optimizers, shapes by tensor, and weights by input."""
    function, weights = _trace(part)
    inputs = [f"{name}:0" for name in (*part.inputs, *weights)]
    outputs = [f"{RESULT}{number}:0" for number in range(len(part.outputs))]
    renamed = {tensor: tensor.removesuffix(":0") for tensor in inputs} | dict(zip(outputs, part.outputs, strict=True))
    definition = function.graph.as_graph_def()
    lower(definition)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
        model, shapes = tensorflow_to_onnx(graph, OPSET, (inputs, outputs, renamed), name)
    shapes = {name: shape for name, shape in shapes.items() if shape}
    passes.pool_channels_first(model, {name for name, shape in shapes.items() if len(shape) == 4})
    return model, shapes, weights


def _trace(part: Part) -> tuple[Any, dict[str, Any]]:
    """Return a part as a function of its inputs and weights, and the variables by input name."""
    variables = {f"weight_{i}": variable for i, variable in enumerate(part.model.variables)}
    names = list(part.inputs)

    @tf.function(autograph=False)
    def function(*tensors: Any) -> Any:
        inputs, weights = tensors[: len(names)], tensors[len(names) :]
        with keras.StatelessScope(state_mapping=list(zip(variables.values(), weights, strict=True))):
            outputs = part(**dict(zip(names, inputs, strict=True)))
        return [tf.identity(outputs[name], name=f"{RESULT}{number}") for number, name in enumerate(part.outputs)]

    inputs = [tf.TensorSpec((None, *shape), dtype, name=name) for name, (shape, dtype) in part.inputs.items()]
    specs = [tf.TensorSpec(v.shape, v.dtype, name=k) for k, v in variables.items()]
    with _inlined():
        return function.get_concrete_function(*inputs, *specs), variables


@contextlib.contextmanager
def _inlined() -> Iterator[None]:
    """Trace functions that are called, as that of Keras' grouped convolution, as part of the caller: ONNX has none."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def _simplify(model: ModelProto, folder: Path, external: bool) -> ModelProto:
    """Return the model after ONNX Runtime's basic optimizations, which do not depend on the hardware."""
    settings = session_options(None)
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory(dir=folder) as place:
        original, simplified = Path(place) / "original.onnx", Path(place) / "simplified.onnx"
        settings.optimized_model_filepath = str(simplified)
        if is_external(model, external):
            settings.add_session_config_entry(
                "session.optimized_model_external_initializers_file_name", "simplified.data"
            )
            settings.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
            save(model, original, external)
        ort.InferenceSession(
            str(original) if original.exists() else model.SerializeToString(),
            settings,
            providers=["CPUExecutionProvider"],
        )
        return onnx.load(str(simplified))
