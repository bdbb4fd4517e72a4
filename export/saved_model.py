"""TensorFlow SavedModel in the layout of TensorFlow Serving: a folder named by its version, with its signatures."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export._format import Tolerance, Way, register
from export._quiet import quiet
from export._saved import SavedModelRuntime, SavedModelWriter
from training._text import tokenizer, words
from zoo._decoding import greedy
from zoo._lazy import tf
from zoo._text import PADDING

if TYPE_CHECKING:
    from export._source import Part, Source


def write(source: Source, path: Path) -> None:
    """Write a SavedModel folder.

    Signatures: `serving_default` takes a float32 batch of raw values, or int32 token ids, and returns "logits". For
    images `serve_bytes` takes "image_bytes", a one-dimensional string tensor of encoded images of any size, and returns
    "logits", "scores" (their softmax) and "labels" (the name of the highest); for texts `serve_text` takes "text", a
    one-dimensional string tensor, and returns the same, with an empty label where a token is padding. A network that
    gives several labels at once returns "logits" and "scores" (their sigmoids, in the order of the labels), one that
    gives numbers "values".

    Args:
        source: what to export.
        path: folder to write, named by the version.
    """
    (part,) = source.parts
    module = tf.Module()
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder) / "labels.txt"
        labels.write_text("".join(f"{label}\n" for label in source.labels), encoding="utf-8")
        module.table = _label_table(str(labels))
        signatures = {part.name: _serve(part)}
        if source.decode is not None:
            signatures["serve_bytes"] = _serve_bytes(source, module.table)
        if source.text is not None:
            module.tokenizer = tokenizer(source.text, source.shape[0])
            signatures["serve_text"] = _serve_text(source, module)
        _save(module, signatures, source, path)


def write_generating(source: Source, path: Path) -> None:
    """Write a SavedModel folder of a network that writes sequences.

    Signatures: `serving_default` and `generate` take "source", int32 ids, and return "tokens", the likeliest ones step
    by step; `generate_text` takes and returns "text", strings; `encode` and `decode` are the parts, for those who
    search otherwise.

    Args:
        source: what to export.
        path: folder to write, named by the version.
    """
    module = tf.Module()
    signatures = {part.name: _serve(part) for part in source.parts}
    signatures["generate"] = signatures["serving_default"] = _generate(source)
    if source.text is not None:
        module.tokenizer = tokenizer(source.text, source.shape[0])
        signatures["generate_text"] = _generate_text(source, module)
    _save(module, signatures, source, path)


def _save(module: Any, signatures: dict[str, Any], source: Source, path: Path) -> None:
    """Write the folder with the metadata in it."""
    module.weights = [variable.value for variable in source.model.variables]
    with quiet():
        tf.saved_model.save(module, str(path), signatures=signatures)
    extra = path / "assets.extra"
    extra.mkdir()
    (extra / "zoo.json").write_text(json.dumps(source.metadata, indent=1), encoding="utf-8")


def _serve(part: Part) -> Any:
    """Return the signature of a part."""
    specs = {name: tf.TensorSpec((None, *shape), dtype, name) for name, (shape, dtype) in part.inputs.items()}
    return tf.function(part, autograph=False).get_concrete_function(**specs)


def _serve_bytes(source: Source, table: Any) -> Any:
    """Return the signature from encoded images to logits, scores and labels."""
    model, answers = source.model, ANSWERS.get(source.task, _best)
    pixels = tf.TensorSpec(model.inputs[0].shape[1:], tf.float32)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
    def serve(image_bytes: Any) -> dict[str, Any]:
        images = tf.map_fn(source.decode, image_bytes, fn_output_signature=pixels)
        return answers(model(images, training=False), table)

    return serve


def _serve_text(source: Source, module: Any) -> Any:
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


def _generate(source: Source) -> Any:
    """Return the signature from ids to ids."""
    spec = tf.TensorSpec((None, *source.parts[0].inputs["source"][0]), tf.int32, name="source")

    @tf.function(autograph=False, input_signature=[spec])
    def generate(source_: Any) -> dict[str, Any]:
        return {"tokens": greedy(source.written_by, source_)}

    return generate


def _generate_text(source: Source, module: Any) -> Any:
    """Return the signature from strings to strings."""

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None,), tf.string, name="text")])
    def generate(text: Any) -> dict[str, Any]:
        tokens = greedy(source.written_by, module.tokenizer(text))
        return {"tokens": tokens, "text": words(source.text, tokens)}

    return generate


def _label_table(path: str) -> Any:
    """Return a table from class to label that reads the file; saving copies the file into the assets."""
    lines = tf.lookup.TextFileInitializer(
        path, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE
    )
    return tf.lookup.StaticHashTable(lines, default_value="")


FLOAT = Tolerance(relative=1e-4, agreement=1.0, drop=0.0)
register(
    "saved_model",
    file="1",
    write=write,
    load=SavedModelRuntime,
    tolerance=FLOAT,
    summary="TensorFlow SavedModel, float32, free batch, for TensorFlow Serving; takes encoded images and texts too",
    generate=Way("1", write_generating, SavedModelWriter, FLOAT),
)
