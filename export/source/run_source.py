"""The source model of a trained run: a float32 rebuild with the trained weights, and test samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from export.core.samples import SECOND_PASS, predict_in_batches
from export.source.rebuild import rebuild
from export.source.source import SourceModel
from training.data.pipeline.pipeline import Pipeline
from training.data.tokenization import detokenize
from training.learning.evaluation import open_data
from training.runs.run import Run
from zoo.common.errors import DataError
from zoo.common.lazy import keras, np
from zoo.decoding import greedy
from zoo.specs.tasks import task_of
from zoo.specs.text import PADDING

# Limits of the samples in an artifact's folder: examples, sequences, and bytes.
SAMPLES, SEQUENCES, SAMPLE_BYTES = 1000, 200, 32 << 20
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
        ParityError: the rebuild computes another function than the trained model.
    """
    # Compressions can train.
    pipeline = open_data(run, check=compress is not None)
    model, labels = rebuild(run, pipeline), run.result()["labels"]
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
    source.max_pixels = run.recipe.data.max_pixels
    return source, _samples(source, pipeline)


def data_metadata(run: Run) -> dict[str, Any]:
    """Return the metadata of a run's data next to its labels: the task, several outputs, and the columns of a table."""
    result, statistics = run.result(), run.statistics() or {}
    found = {"task": result.get("task"), "outputs": result.get("outputs"), "tabular": statistics.get("tabular")}
    return {key: value for key, value in found.items() if value}


def _samples(source: SourceModel, pipeline: Pipeline) -> dict[str, Any]:
    """Return test examples with the source model's predictions."""
    generates = task_of(source.task).generates
    # One byte per pixel, four per logit.
    size = math.prod(source.shape) + 4 * sum(math.prod(tensor.shape[1:]) for tensor in source.model.outputs)
    split = "test" if "test" in pipeline.dataset.splits else "validation"
    count = max(16, min(SEQUENCES if generates else SAMPLES, SAMPLE_BYTES // size))
    inputs, labels = pipeline.raw(split, count)
    samples = {"inputs": inputs, "labels": labels, "logits": predict_in_batches(source.model, inputs)}
    if source.text:
        samples["texts"] = np.array(pipeline.strings(split, count)[:SECOND_PASS])
    if pipeline.dataset.table:
        samples |= _rows(pipeline, split, count, inputs)
    if generates:
        samples["labels"] = np.where(labels == PADDING, IGNORED, labels)
        samples["tokens"] = np.asarray(greedy(source.encoder_decoder, keras.ops.convert_to_tensor(inputs["source"])))
        generated = detokenize(source.text, samples["tokens"][:SECOND_PASS]).numpy()
        samples["generated"] = np.array([text.decode("utf-8", "replace") for text in generated])
    return samples


def _rows(pipeline: Pipeline, split: str, count: int, inputs: Any) -> dict[str, Any]:
    """Return the cells of the first rows of a table as texts, unless numbers of a Parquet file are other texts."""
    table, rows = pipeline.dataset.table, pipeline.rows(split, count)[:SECOND_PASS]
    try:
        found = table.encode_records([dict(zip(table.names, row, strict=True)) for row in rows])
    except DataError:
        return {}
    return {"rows": np.array(rows)} if np.array_equal(found, inputs[: len(rows)]) else {}
