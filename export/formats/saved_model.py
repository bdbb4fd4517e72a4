"""TensorFlow SavedModel for TensorFlow Serving: a folder named by its version, with signatures."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from export.backends.tensorflow.rows import encode_rows, row_inputs
from export.backends.tensorflow.runtime import SavedModelGenerator, SavedModelRuntime
from export.backends.tensorflow.warmup import write_warmup
from export.core.format import Backend, register
from export.core.options import Options, with_options
from export.core.quiet import quiet
from export.core.tolerance import FLOAT32_TOLERANCE
from export.source.features import feature_model
from training.data.columns.schema import ColumnSchema
from training.data.tokenization import detokenize, tokenizer
from zoo.common.compat import flatten_layers
from zoo.common.errors import BadOption
from zoo.common.lazy import np, tf
from zoo.decoding import greedy
from zoo.specs.text import PADDING

if TYPE_CHECKING:
    from export.source.source import Part, SourceModel


@dataclasses.dataclass(frozen=True)
class SavedOptions(Options):
    """Options of SavedModels.

    Args:
        input: dtype of the signatures for raw values; uint8 is for images only and needs a quarter of the traffic.
    """

    input: Literal["float32", "uint8"] = "float32"

    def check(self, metadata: Mapping[str, Any]) -> None:
        """Raise BadOption if the model takes no images."""
        if self.input == "uint8" and metadata["input"] != "image":
            raise BadOption(f"input=uint8 applies to images. Received: a model of {metadata['input']}. Use float32.")


PLAIN = SavedOptions()
# What signatures for encoded inputs return next to the outputs of the model.
EXTRA = ("scores", "labels")


def write(source: SourceModel, path: Path, options: SavedOptions = PLAIN) -> None:
    """Write a SavedModel folder.

    Signatures: `serving_default` takes a batch of raw values, float32 by default, or int32 token ids, and returns
    "logits"; `features` takes the same and returns "features", the input of the last dense layer, if there are other
    layers. For images `serve_bytes` takes "image_bytes", a one-dimensional string tensor of JPEG, PNG, WebP, GIF or BMP
    files of any size, and returns "logits", "scores" (their softmax) and "labels" (the top-1 name); for texts
    `serve_text` takes "text", a one-dimensional string tensor, and returns the same, with an empty label for padding;
    for rows of a table `serve_rows` takes a one-dimensional string tensor for each column, by its name as an
    identifier. A multi-label model returns "logits" and "scores" (sigmoids in the order of the labels), a regression
    model "values", an encoder "embedding", and a model for several targets each by its name, such as "species",
    "species_scores" and "species_labels". The folder also holds the labels as an asset, and a warm-up request for each
    signature.

    Args:
        source: the model to convert.
        path: folder to write, named by the version.
        options: the format's options.
    """
    (part,) = source.parts
    module = tf.Module()
    specs = {
        name: tf.TensorSpec((None, *shape), options.input if dtype == "float32" else dtype, name)
        for name, (shape, dtype) in part.inputs.items()
    }
    raw = {
        name: _as(spec, value)
        for (name, spec), value in zip(specs.items(), _listed(source.example, specs), strict=True)
    }
    trunk = feature_model(source.model, source.inner)
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder) / "labels.txt"
        labels.write_text("".join(f"{label}\n" for label in source.labels), encoding="utf-8")
        module.table = _label_table(str(labels)) if source.labels else None
        returned = _returned(source, module)
        served = {part.name: (_serve(part, specs), raw)}
        if trunk is not None:
            served["features"] = _serve(dataclasses.replace(part, model=trunk, outputs=("features",)), specs), raw
        if source.decode is not None:
            served["serve_bytes"] = _serve_bytes(source, returned), {"image_bytes": [_jpeg(source.shape)]}
        if source.text is not None:
            module.tokenizer = tokenizer(source.text, source.shape[0])
            served["serve_text"] = (
                _serve_text(source, module, returned),
                {"text": [source.text.vocabulary[-1].encode()]},
            )
        if schema := source.metadata.get("tabular"):
            columns = ColumnSchema.from_json(schema)
            empty = {name: [b""] for name in row_inputs(columns)}
            served["serve_rows"] = _serve_rows(source, columns, returned), empty
        _save(module, served, source, path, options)


def write_generating(source: SourceModel, path: Path, options: SavedOptions = PLAIN) -> None:
    """Write a SavedModel folder of a sequence-to-sequence model.

    Signatures: `serving_default` and `generate` take "source", int32 ids, and return "tokens" by greedy decoding;
    `generate_text` takes and returns "text", strings; `encode` and `decode` are the parts, for other decoding methods.

    Args:
        source: the model to convert.
        path: folder to write, named by the version.
        options: the format's options.
    """
    module = tf.Module()
    served = {part.name: (_serve_part(part), next(source.feeds(part, 1))) for part in source.parts}
    ids = {"source": np.asarray(source.example["source"], "int32")}
    served["generate"] = served["serving_default"] = _generate(source), ids
    if source.text is not None:
        module.tokenizer = tokenizer(source.text, source.shape[0])
        served["generate_text"] = _generate_text(source, module), {"text": [source.text.vocabulary[-1].encode()]}
    _save(module, served, source, path, options)


def _save(
    module: Any, served: Mapping[str, tuple[Any, Any]], source: SourceModel, path: Path, options: SavedOptions
) -> None:
    """Write the folder with metadata and warm-up requests.

    Args:
        module: holds the resources of the signatures.
        served: each signature with the inputs of its warm-up request.
        source: the model.
        path: the folder.
        options: the format's options.
    """
    module.weights = [variable.value for variable in source.model.variables]
    found = flatten_layers(source.model)
    module.tables = [layer.lookup_table for layer in found if hasattr(layer, "lookup_table")]
    with quiet():
        tf.saved_model.save(module, str(path), signatures={name: function for name, (function, _) in served.items()})
    extra = path / "assets.extra"
    extra.mkdir()
    (extra / "zoo.json").write_text(json.dumps(with_options(source.metadata, options), indent=1), encoding="utf-8")
    write_warmup(extra, source.metadata["model"], {name: example for name, (_, example) in served.items()})


def _listed(example: Any, names: Collection[str]) -> list[Any]:
    """Return the example of each input."""
    return [example[name] for name in names] if isinstance(example, dict) else [example]


def _as(spec: Any, value: Any) -> Any:
    return np.asarray(value, None if spec.dtype == tf.string else spec.dtype.as_numpy_dtype)


def _serve(part: Part, specs: Mapping[str, Any]) -> Any:
    """Return the signature of a part with inputs of other dtypes."""
    dtypes = {name: dtype for name, (_, dtype) in part.inputs.items()}

    def serve(**values: Any) -> dict[str, Any]:
        return part(**{name: tf.cast(value, dtypes[name]) for name, value in values.items()})

    return tf.function(serve, autograph=False).get_concrete_function(**specs)


def _serve_part(part: Part) -> Any:
    """Return the signature of a part."""
    return _serve(
        part, {name: tf.TensorSpec((None, *shape), dtype, name) for name, (shape, dtype) in part.inputs.items()}
    )


def _jpeg(shape: tuple[int, ...]) -> bytes:
    """Return a black image of a shape (height, width, channels), encoded in color."""
    return tf.io.encode_jpeg(tf.zeros((*shape[:2], 3), tf.uint8)).numpy()


def _returned(source: SourceModel, module: Any) -> Callable[[Any], dict[str, Any]]:
    """Return the function from the model's outputs to those of the signatures for encoded inputs.

    For several targets, what an output returns has its name in front, and the output itself has its name alone.
    """
    several = source.metadata.get("outputs")
    if not several:
        outputs = OUTPUTS.get(source.task, _classification_outputs)
        return lambda logits: outputs(logits, module.table)
    names = {one["name"]: tf.constant(one["labels"]) for one in several}

    def named(found: Any) -> dict[str, Any]:
        returned: dict[str, Any] = {}
        for one in several:
            name = one["name"]
            outputs = OUTPUTS.get(one["task"], _classification_outputs)
            parts = outputs(found[name], _Names(names[name])).items()
            returned |= {f"{name}_{key}" if key in EXTRA else name: value for key, value in parts}
        return returned

    return named


class _Names:
    """A table of the labels of one of several outputs."""

    def __init__(self, labels: Any) -> None:
        self._labels = labels

    def lookup(self, indices: Any) -> Any:
        """Return the labels of indices."""
        return tf.gather(self._labels, indices)


def _serve_bytes(source: SourceModel, returned: Callable[[Any], dict[str, Any]]) -> Any:
    """Return the signature from encoded images to logits, scores and labels."""
    model = source.model
    pixels = tf.TensorSpec(model.inputs[0].shape[1:], tf.float32)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
    def serve(image_bytes: Any) -> dict[str, Any]:
        images = tf.map_fn(source.decode, image_bytes, fn_output_signature=pixels)
        return returned(model(images, training=False))

    return serve


def _serve_text(source: SourceModel, module: Any, returned: Callable[[Any], dict[str, Any]]) -> Any:
    """Return the signature from strings to logits, scores and labels."""
    model = source.model

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None,), tf.string, name="text")])
    def serve(text: Any) -> dict[str, Any]:
        ids = module.tokenizer(text)
        predictions = returned(model(ids, training=False))
        if not isinstance(model.output, dict) and len(model.output_shape) > 2:
            predictions["labels"] = tf.where(tf.equal(ids, PADDING), "", predictions["labels"])
        return predictions

    return serve


def _serve_rows(source: SourceModel, columns: ColumnSchema, returned: Callable[[Any], dict[str, Any]]) -> Any:
    """Return the signature from the cells of rows, strings by column, to logits, scores and labels."""
    specs = {name: tf.TensorSpec((None,), tf.string, name=name) for name in row_inputs(columns)}

    def serve(**cells: Any) -> dict[str, Any]:
        # TensorFlow sorts the inputs by name.
        return returned(source.model(encode_rows(columns, [cells[name] for name in specs]), training=False))

    return tf.function(serve, autograph=False).get_concrete_function(**specs)


def _classification_outputs(logits: Any, table: Any) -> dict[str, Any]:
    """Return logits, softmax scores and top-1 labels."""
    return {"logits": logits, "scores": tf.nn.softmax(logits), "labels": table.lookup(tf.argmax(logits, axis=-1))}


def _multilabel_outputs(logits: Any, _: Any) -> dict[str, Any]:
    """Return logits and sigmoid scores."""
    return {"logits": logits, "scores": tf.nn.sigmoid(logits)}


# Outputs of the signatures for encoded inputs, by task; `_classification_outputs` for all others.
OUTPUTS = {
    "multilabel": _multilabel_outputs,
    "regress": lambda values, _: {"values": values},
    "embed": lambda vectors, _: {"embedding": vectors},
}


def _generate(source: SourceModel) -> Any:
    """Return the signature from ids to ids."""
    spec = tf.TensorSpec((None, *source.parts[0].inputs["source"][0]), tf.int32, name="source")

    @tf.function(autograph=False, input_signature=[spec])
    def generate(source_: Any) -> dict[str, Any]:
        return {"tokens": greedy(source.encoder_decoder, source_)}

    return generate


def _generate_text(source: SourceModel, module: Any) -> Any:
    """Return the signature from strings to strings."""

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None,), tf.string, name="text")])
    def generate(text: Any) -> dict[str, Any]:
        tokens = greedy(source.encoder_decoder, module.tokenizer(text))
        return {"tokens": tokens, "text": detokenize(source.text, tokens)}

    return generate


def _label_table(path: str) -> Any:
    """Return a lookup table from class to label; saving copies its file into the assets."""
    lines = tf.lookup.TextFileInitializer(
        path, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE
    )
    return tf.lookup.StaticHashTable(lines, default_value="")


register(
    "saved_model",
    file="1",
    write=write,
    load=SavedModelRuntime,
    tolerance=FLOAT32_TOLERANCE,
    summary="TensorFlow SavedModel, float32, dynamic batch, for TensorFlow Serving; takes files, texts and rows too",
    generate=Backend("1", write_generating, SavedModelGenerator, FLOAT32_TOLERANCE),
    options=SavedOptions,
    any_input=True,
)
