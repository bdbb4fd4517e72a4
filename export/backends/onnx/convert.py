"""From a Keras model to ONNX, and from what was made of it to a file.

The conversion keeps the weights out of TensorFlow's graph: they enter it as inputs and become initializers
afterwards, because freezing and optimizing a graph copies every weight it holds several times.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.onnx import passes
from export.backends.onnx.external import is_external, save
from export.backends.onnx.fuse import divide_before_erf, fuse_layer_norms, scale_channels_first
from export.backends.onnx.options import OPSET, OnnxOptions
from export.backends.onnx.runtime import FILES, options
from export.core.options import with_options
from export.core.quiet import quiet
from zoo.common.lazy import LazyModule, keras, tf

if TYPE_CHECKING:
    from onnx import ModelProto

    from export.source.source import Part, SourceModel

onnx = LazyModule("onnx")
ort = LazyModule("onnxruntime")
tf2onnx = LazyModule("tf2onnx")

# Facts that readers who do not know the zoo look for; strings as they are, all else as JSON.
SHOWN = ("model", "task", "labels", "preprocessing", "input", "output")


def files_of(source: SourceModel, path: Path) -> Iterator[tuple[Part, Path]]:
    """Yield the parts of a model, each with its file: `path`, or several in the folder of that name."""
    for part in source.parts:
        yield part, path / FILES[part.name] if len(source.parts) > 1 else path


def convert(part: Part, name: str, folder: Path, external: bool = False) -> ModelProto:
    """Return a part in float32, of the operator set `OPSET`, tidied.

    Args:
        part: what to convert.
        name: name of the model.
        folder: for files in between.
        external: handle the weights outside the file, as is done with those of more than two gigabytes.

    Raises:
        UnsupportedExport: ONNX lacks an operator of the model.
    """
    with quiet():
        model, shapes, weights = _from_graph(part, name)
    waiting = passes.wait_for(model, weights)
    later = {name: weights.pop(name) for name in waiting}
    passes.restore_weights(model, weights)
    passes.flatten_plainly(model, shapes)
    passes.check(model)
    passes.name_batch(model, weights=waiting)
    model = _tidy(model, folder, external)
    passes.restore_weights(model, later)
    fuse_layer_norms(model, {name: len(shape) for name, shape in shapes.items()})
    divide_before_erf(model)
    scale_channels_first(model)
    passes.drop_unused(model)
    return model


def finish(model: ModelProto, source: SourceModel, path: Path, given: OnnxOptions) -> None:
    """Check the model and write it as it was asked for, with the metadata, naming only the operator sets it uses."""
    opsets = [opset for opset in model.opset_import if opset.domain in passes.STANDARD_DOMAINS]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    del model.graph.value_info[:]  # shapes of before, which are inferred anew
    passes.name_batch(model, given.axis, given.batch)
    model = passes.raise_opset(model, given.opset)
    facts = with_options(source.metadata, given)
    onnx.helper.set_model_props(model, {"zoo": json.dumps(facts), **_shown(facts)})
    passes.check(model)
    save(model, path, given.external)


def _shown(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts to be read one by one."""
    found = {key: facts[key] for key in SHOWN if facts.get(key) is not None}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in found.items()}


def _from_graph(part: Part, name: str) -> tuple[ModelProto, dict[str, list[int]], dict[str, Any]]:
    """Return a part as tf2onnx writes it, without its optimizers; shapes by tensor, and the weights by input."""
    function, weights = _trace(part)
    given, out = ([f"{name}:0" for name in names] for names in ((*part.inputs, *weights), part.outputs))
    renamed = {tensor: tensor.removesuffix(":0") for tensor in (*given, *out)}
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(function.graph.as_graph_def(), name="")
        converted = tf2onnx.tfonnx.process_tf_graph(
            graph, True, opset=OPSET, input_names=given, output_names=out, tensors_to_rename=renamed
        )
    model = tf2onnx.optimizer.optimize_graph(converted, optimizers={}).make_model(name)
    shapes = {name: converted.get_shape(name) for node in converted.get_nodes() for name in node.output}
    shapes = {name: shape for name, shape in shapes.items() if shape}
    passes.pool_channels_first(model, {name for name, shape in shapes.items() if len(shape) == 4})
    return model, shapes, weights


def _trace(part: Part) -> tuple[Any, dict[str, Any]]:
    """Return a part as a function of its inputs and its weights, and the variables of these by input name."""
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
    return function.get_concrete_function(*inputs, *specs), variables


def _tidy(model: ModelProto, folder: Path, external: bool) -> ModelProto:
    """Return the model after ONNX Runtime's basic passes, the ones that do not depend on the hardware."""
    settings = options(None)
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory(dir=folder) as place:
        given, tidied = Path(place) / "given.onnx", Path(place) / "tidied.onnx"
        settings.optimized_model_filepath = str(tidied)
        if is_external(model, external):
            settings.add_session_config_entry("session.optimized_model_external_initializers_file_name", "tidied.data")
            settings.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
            save(model, given, external)
        ort.InferenceSession(
            str(given) if given.exists() else model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
        )
        return onnx.load(str(tidied))
