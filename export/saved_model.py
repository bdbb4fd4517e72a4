"""TensorFlow SavedModel in the layout of TensorFlow Serving: a folder named by its version, with two signatures."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export._format import Runtime, Tensor, Tolerance, register
from export._quiet import quiet
from zoo._errors import BadOption, UnsupportedExport
from zoo._lazy import np, tf

if TYPE_CHECKING:
    from export._source import Source

BATCH = 32  # images a call, so that memory stays bounded however many are asked for


def write(source: Source, path: Path) -> None:
    """Write a SavedModel folder.

    Signatures: `serving_default` takes a float32 batch of raw values and returns "logits"; for images `serve_bytes`
    takes "image_bytes", a one-dimensional string tensor of encoded images of any size, and returns "logits",
    "scores" (their softmax) and "labels" (the name of the highest).

    Args:
        source: what to export.
        path: folder to write, named by the version.
    """
    module = tf.Module()
    module.weights = [variable.value for variable in source.model.variables]
    signatures = {"serving_default": _serve(source)}
    with tempfile.TemporaryDirectory() as folder, quiet():
        labels = Path(folder) / "labels.txt"
        labels.write_text("".join(f"{label}\n" for label in source.labels), encoding="utf-8")
        module.table = _label_table(str(labels))
        if source.decode is not None:
            signatures["serve_bytes"] = _serve_bytes(source, module.table)
        tf.saved_model.save(module, str(path), signatures=signatures)
    extra = path / "assets.extra"
    extra.mkdir()
    (extra / "zoo.json").write_text(json.dumps(source.metadata, indent=1), encoding="utf-8")


def _serve(source: Source) -> Any:
    """Return the signature from raw values to logits."""
    model = source.model
    spec = tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32, name=source.metadata["input"])

    @tf.function(autograph=False, input_signature=[spec])
    def serve(inputs: Any) -> dict[str, Any]:
        return {source.metadata["output"]: model(inputs, training=False)}

    return serve


def _serve_bytes(source: Source, table: Any) -> Any:
    """Return the signature from encoded images to logits, scores and labels."""
    model = source.model
    pixels = tf.TensorSpec(model.inputs[0].shape[1:], tf.float32)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
    def serve(image_bytes: Any) -> dict[str, Any]:
        images = tf.map_fn(source.decode, image_bytes, fn_output_signature=pixels)
        logits = model(images, training=False)
        best = table.lookup(tf.argmax(logits, axis=-1))
        return {source.metadata["output"]: logits, "scores": tf.nn.softmax(logits), "labels": best}

    return serve


def _label_table(path: str) -> Any:
    """Return a table from class to label that reads the file; saving copies the file into the assets."""
    lines = tf.lookup.TextFileInitializer(
        path, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE
    )
    return tf.lookup.StaticHashTable(lines, default_value="")


def _set_threads(threads: int) -> None:
    """Set the threads within an operator, which TensorFlow allows for the whole process and before its first use."""
    threading = tf.config.threading
    running = threading.get_intra_op_parallelism_threads() or os.cpu_count()
    if threads == running:
        return
    try:
        threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError as error:
        raise BadOption(
            f"TensorFlow is already running with {running} threads and cannot change that. "
            f"Received: threads={threads}. Load a saved_model before anything else uses TensorFlow."
        ) from error


class SavedModelRuntime(Runtime):
    """A SavedModel in TensorFlow, called through its signatures as a server would.

    Args:
        path: the version folder.
        threads: threads within an operator, TensorFlow's choice by default.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        if threads is not None:
            _set_threads(threads)
        self._loaded = tf.saved_model.load(str(path))  # kept: its signatures do not keep it alive
        self._serve = self._loaded.signatures["serving_default"]
        self.inputs = tuple(map(_tensor, self._serve.structured_input_signature[1].values()))
        self.outputs = tuple(_tensor(output, name) for name, output in self._serve.structured_outputs.items())
        self.batch = self.inputs[0].shape[0]
        extra = Path(path) / "assets.extra" / "zoo.json"
        self.metadata = json.loads(extra.read_text(encoding="utf-8")) if extra.exists() else None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return float32 logits (n, classes) of raw values (n, *shape)."""
        images = np.asarray(images, np.float32)
        return np.concatenate([self._logits(self._serve, images[i : i + BATCH]) for i in range(0, len(images), BATCH)])

    def step(self, images: np.ndarray) -> None:
        """Run once on raw float32 values (n, *shape)."""
        self._logits(self._serve, images)

    def classify_bytes(self, encoded: list[bytes]) -> np.ndarray:
        """Return float32 logits (n, classes) of encoded images (JPEG, PNG, …) of any size.

        Raises:
            UnsupportedExport: the model does not take images.
        """
        if "serve_bytes" not in self._loaded.signatures:
            raise UnsupportedExport(
                "Only a model of images has the signature serve_bytes. "
                f"Received: signatures={sorted(self._loaded.signatures)}. Call it with raw values."
            )
        serve = self._loaded.signatures["serve_bytes"]
        batches = (encoded[i : i + BATCH] for i in range(0, len(encoded), BATCH))
        return np.concatenate([self._logits(serve, batch) for batch in batches])

    def _logits(self, signature: Any, values: Any) -> np.ndarray:
        """Return the logits of one call."""
        return signature(tf.constant(values))[self.outputs[0].name].numpy()


def _tensor(spec: Any, name: str | None = None) -> Tensor:
    """Return a signature's input or output."""
    return Tensor(name or spec.name, tuple(spec.shape), spec.dtype.name)


register(
    "saved_model",
    file="1",
    write=write,
    load=SavedModelRuntime,
    tolerance=Tolerance(relative=1e-4, agreement=1.0, drop=0.0),
    summary="TensorFlow SavedModel, float32, free batch, for TensorFlow Serving; takes encoded images too",
)
