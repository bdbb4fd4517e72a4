"""TensorFlow SavedModel in the layout of TensorFlow Serving: a folder named by its version, with its signatures."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from export.backends.tensorflow.runtime import SavedModelGenerator, SavedModelRuntime
from export.backends.tensorflow.warmup import write_warmup
from export.core.format import FLOAT, Backend, register
from export.core.options import Options, with_options
from export.core.quiet import quiet
from export.source.features import features_of
from training.data.tokenization import detokenize, tokenizer
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
        input: what the signatures for raw values take; uint8 is a fourth of the traffic, and for images only.
    """

    input: Literal["float32", "uint8"] = "float32"

    def check(self, facts: Mapping[str, Any]) -> None:
        """Raise BadOption if the network takes no images."""
        if self.input == "uint8" and facts["input"] != "image":
            raise BadOption(f"input=uint8 is for images, whose values are bytes. Received: a model of {facts['input']}")


PLAIN = SavedOptions()


def write(source: SourceModel, path: Path, options: SavedOptions = PLAIN) -> None:
    """Write a SavedModel folder.

    Signatures: `serving_default` takes a batch of raw values, float32 if nothing else is asked for, or int32 token ids,
    and returns "logits"; `features` takes the same and returns "features", what the last dense layer takes, where the
    network has more than that. For images `serve_bytes` takes "image_bytes", a one-dimensional string tensor of JPEG,
    PNG, WebP, GIF or BMP files of any size, and returns "logits", "scores" (their softmax) and "labels" (the name of
    the highest); for texts `serve_text` takes "text", a one-dimensional string tensor, and returns the same, with an
    empty label where a token is padding. A network that gives several labels at once returns "logits" and "scores"
    (their sigmoids, in the order of the labels), one that gives numbers "values". Beside them lie the labels as an
    asset, and a request for each signature with which TensorFlow Serving warms up.

    Args:
        source: what to export.
        path: folder to write, named by the version.
        options: what was asked for.
    """
    (part,) = source.parts
    module = tf.Module()
    ((name, (shape, dtype)),) = part.inputs.items()
    given = tf.TensorSpec((None, *shape), options.input if dtype == "float32" else dtype, name)
    raw = {name: np.asarray(source.calibration[:1], given.dtype.as_numpy_dtype)}
    trunk = features_of(source.model)
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder) / "labels.txt"
        labels.write_text("".join(f"{label}\n" for label in source.labels), encoding="utf-8")
        module.table = _label_table(str(labels))
        served = {part.name: (_serve(source.model, part.outputs[0], given), raw)}
        if trunk is not None:
            served["features"] = _serve(trunk, "features", given), raw
        if source.decode is not None:
            served["serve_bytes"] = _serve_bytes(source, module.table), {"image_bytes": [_jpeg(shape)]}
        if source.text is not None:
            module.tokenizer = tokenizer(source.text, source.shape[0])
            served["serve_text"] = _serve_text(source, module), {"text": [source.text.vocabulary[-1].encode()]}
        _save(module, served, source, path, options)


def write_generating(source: SourceModel, path: Path, options: SavedOptions = PLAIN) -> None:
    """Write a SavedModel folder of a network that writes sequences.

    Signatures: `serving_default` and `generate` take "source", int32 ids, and return "tokens", the likeliest ones step
    by step; `generate_text` takes and returns "text", strings; `encode` and `decode` are the parts, for those who
    search otherwise.

    Args:
        source: what to export.
        path: folder to write, named by the version.
        options: what was asked for.
    """
    module = tf.Module()
    served = {part.name: (_serve_part(part), next(source.feeds(part, 1))) for part in source.parts}
    ids = {"source": np.asarray(source.calibration["source"][:1], "int32")}
    served["generate"] = served["serving_default"] = _generate(source), ids
    if source.text is not None:
        module.tokenizer = tokenizer(source.text, source.shape[0])
        served["generate_text"] = _generate_text(source, module), {"text": [source.text.vocabulary[-1].encode()]}
    _save(module, served, source, path, options)


def _save(module: Any, served: Mapping[str, tuple[Any, Any]], source: SourceModel, path: Path, given: SavedOptions) -> None:
    """Write the folder with the metadata and the warm-up requests in it.

    Args:
        module: what the signatures use.
        served: each signature, and what it is warmed up with.
        source: what was exported.
        path: the folder.
        given: what was asked for.
    """
    module.weights = [variable.value for variable in source.model.variables]
    with quiet():
        tf.saved_model.save(module, str(path), signatures={name: function for name, (function, _) in served.items()})
    extra = path / "assets.extra"
    extra.mkdir()
    (extra / "zoo.json").write_text(json.dumps(with_options(source.metadata, given), indent=1), encoding="utf-8")
    write_warmup(extra, source.metadata["model"], {name: example for name, (_, example) in served.items()})


def _serve(model: Any, output: str, given: Any) -> Any:
    """Return the signature of a model with one input and one output."""

    def serve(**values: Any) -> dict[str, Any]:
        (value,) = values.values()
        return {output: model(tf.cast(value, model.inputs[0].dtype), training=False)}

    return tf.function(serve, autograph=False).get_concrete_function(**{given.name: given})


def _serve_part(part: Part) -> Any:
    """Return the signature of a part."""
    specs = {name: tf.TensorSpec((None, *shape), dtype, name) for name, (shape, dtype) in part.inputs.items()}
    return tf.function(part, autograph=False).get_concrete_function(**specs)


def _jpeg(shape: tuple[int, ...]) -> bytes:
    """Return a black image of a shape (height, width, channels), encoded in colour."""
    return tf.io.encode_jpeg(tf.zeros((*shape[:2], 3), tf.uint8)).numpy()


def _serve_bytes(source: SourceModel, table: Any) -> Any:
    """Return the signature from encoded images to logits, scores and labels."""
    model, answers = source.model, ANSWERS.get(source.task, _best)
    pixels = tf.TensorSpec(model.inputs[0].shape[1:], tf.float32)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
    def serve(image_bytes: Any) -> dict[str, Any]:
        images = tf.map_fn(source.decode, image_bytes, fn_output_signature=pixels)
        return answers(model(images, training=False), table)

    return serve


def _serve_text(source: SourceModel, module: Any) -> Any:
    """Return the signature from strings to logits, scores and labels."""
    model, answers = source.model, ANSWERS.get(source.task, _best)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None,), tf.string, name="text")])
    def serve(text: Any) -> dict[str, Any]:
        ids = module.tokenizer(text)
        found = answers(model(ids, training=False), module.table)
        if len(model.output_shape) > 2:
            found["labels"] = tf.where(tf.equal(ids, PADDING), "", found["labels"])
        return found

    return serve


def _best(logits: Any, table: Any) -> dict[str, Any]:
    """Return what a client wants to know of classes."""
    return {"logits": logits, "scores": tf.nn.softmax(logits), "labels": table.lookup(tf.argmax(logits, axis=-1))}


def _each(logits: Any, _: Any) -> dict[str, Any]:
    return {"logits": logits, "scores": tf.nn.sigmoid(logits)}


# What is told beside the answers, by task; `_best` where it is one of several classes.
ANSWERS = {"multilabel": _each, "regress": lambda values, _: {"values": values}}


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
    """Return a table from class to label that reads the file; saving copies the file into the assets."""
    lines = tf.lookup.TextFileInitializer(
        path, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE
    )
    return tf.lookup.StaticHashTable(lines, default_value="")


register(
    "saved_model",
    file="1",
    write=write,
    load=SavedModelRuntime,
    tolerance=FLOAT,
    summary="TensorFlow SavedModel, float32, free batch, for TensorFlow Serving; takes encoded images and texts too",
    generate=Backend("1", write_generating, SavedModelGenerator, FLOAT),
    options=SavedOptions,
)
