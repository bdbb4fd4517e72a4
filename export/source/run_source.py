"""The source model of a trained run: a float32 rebuild with the trained weights, and test samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from export.core.samples import SECOND_PASS, predict_in_batches
from export.source.backend_parity import require_same_logits
from export.source.source import SourceModel
from training.data.pipeline.pipeline import Pipeline
from training.data.tokenization import detokenize
from training.learning.build import build_model
from training.learning.evaluation import load_model, open_data
from training.runs.run import Run
from zoo.build import dtype_policy
from zoo.common.errors import ParityError
from zoo.common.lazy import keras, np
from zoo.decoding import greedy
from zoo.specs.text import PADDING

# Limits of the samples in an artifact's folder: examples, sequences, and bytes.
SAMPLES, SEQUENCES, SAMPLE_BYTES = 1000, 200, 32 << 20
# Allowed error of the float32 rebuild, as a fraction of the largest logit: none but rounding if the run trained in
# float32; the rounding of mixed precision otherwise.
REBUILD_TOLERANCE = {"float32": 1e-5}
MIXED_REBUILD_TOLERANCE = 0.1
# The label of padding.
IGNORED = -1


def open_run_source(
    run: Run, scratch: Path, compress: Callable[..., Any] | None = None
) -> tuple[SourceModel, dict[str, Any]]:
    """Rebuild the model of a finished run.

    Args:
        run: a finished run.
        scratch: folder for artifacts that several formats share.
        compress: `compress(model, pipeline)` returns an `export.compression.pipeline.CompressedModel`; None for none.

    Returns:
        The source model, and test samples that every artifact must reproduce: inputs (raw values or ids), labels (-1
        for padding), logits, and for sequence-to-sequence models the tokens.

    Raises:
        ParityError: the rebuild differs from the trained model.
    """
    # Compressions can train.
    pipeline = open_data(run, check=compress is not None)
    model, labels = _rebuild(run, pipeline), run.result()["labels"]
    compressed = compress(model, pipeline) if compress else None
    source = SourceModel(
        compressed.model if compressed else model,
        pipeline.preprocessing,
        labels,
        lambda count: pipeline.raw("train", count)[0],
        scratch,
        pipeline.text,
        data_metadata(run),
    )
    source.writers = compressed.writers if compressed else {}
    return source, _samples(source, pipeline)


def data_metadata(run: Run) -> dict[str, Any]:
    """Return the metadata of a run's data next to its labels: the task, and the columns of a table."""
    task, learnt = run.result().get("task"), run.statistics() or {}
    return {key: value for key, value in (("task", task), ("tabular", learnt.get("tabular"))) if value}


def _samples(source: SourceModel, pipeline: Pipeline) -> dict[str, Any]:
    """Return test examples with the source model's predictions."""
    generates = source.task == "generate"
    # One byte per pixel, four per logit.
    size = math.prod(source.shape) + 4 * math.prod(source.model.output_shape[1:])
    split = "test" if "test" in pipeline.dataset.splits else "validation"
    count = max(16, min(SEQUENCES if generates else SAMPLES, SAMPLE_BYTES // size))
    inputs, labels = pipeline.raw(split, count)
    samples = {"inputs": inputs, "labels": labels, "logits": predict_in_batches(source.model, inputs)}
    if source.text:
        samples["texts"] = np.array(pipeline.strings(split, count)[:SECOND_PASS])
    if generates:
        samples["labels"] = np.where(labels == PADDING, IGNORED, labels)
        samples["tokens"] = np.asarray(greedy(source.encoder_decoder, keras.ops.convert_to_tensor(inputs["source"])))
        generated = detokenize(source.text, samples["tokens"][:SECOND_PASS]).numpy()
        samples["generated"] = np.array([text.decode("utf-8", "replace") for text in generated])
    return samples


def _rebuild(run: Run, pipeline: Pipeline) -> Any:
    """Build the model in float32, load the trained weights, and verify that it equals the trained model."""
    with dtype_policy("float32"):
        model = build_model(run.recipe, pipeline)
    model.load_weights(run.model_path)
    require_same_logits(run, model)
    x, _ = pipeline.first_batch("validation")
    trained = np.asarray(load_model(run)(x, training=False), "float32")
    error = float(np.abs(np.asarray(model(x, training=False)) - trained).max() / (np.abs(trained).max() + 1e-12))
    allowed = REBUILD_TOLERANCE.get(run.result()["precision"], MIXED_REBUILD_TOLERANCE)
    if not error <= allowed:
        raise ParityError(
            f"The float32 rebuild of {run.path} differs from its model.keras: max error {error:.2g} of the largest "
            f"logit (tolerance {allowed:g}). The family's code or the file has changed since training. Train again."
        )
    return model
