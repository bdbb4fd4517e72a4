"""Compression pipelines such as `distill:resnet_tiny | prune:0.8 | qat`: parse, plan, run and verify."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.compression.guarantees import FACTS, check_artifact, check_model, nonzero_masks
from export.compression.steps import digest_text, load_step, measure_model, run_step, workbenches
from export.core.compression import Step, parse_step
from export.core.manifest import MASKS
from training.runs.run import Run
from zoo.common.errors import BadOption, RunError, UnsupportedExport
from zoo.common.files import write_atomic, write_json
from zoo.common.lazy import np
from zoo.reading.arrays import read_npz
from zoo.reading.json_files import read_json

if TYPE_CHECKING:
    import keras as _keras

    from export.core.format import FormatRequest
    from training.data.pipeline.pipeline import Pipeline

RECORD = "compression.json"
SLUG_LENGTH = 60


@dataclasses.dataclass(frozen=True)
class CompressionPipeline:
    """The steps of a compression, in order.

    Args:
        steps: at least one.
    """

    steps: tuple[Step, ...]

    @property
    def text(self) -> str:
        """The pipeline as text."""
        return " | ".join(step.text for step in self.steps)

    @property
    def slug(self) -> str:
        """The text for a folder name; ends with a few digits of the text's digest if characters are dropped."""
        plain = re.sub(r"[^a-z0-9._]+", "-", self.text.lower().replace(" | ", "-")).strip("-")
        dropped = re.search(r"[^a-zA-Z0-9.:|_ ]", self.text) or len(plain) > SLUG_LENGTH
        return f"{plain[:SLUG_LENGTH]}-{digest_text(self.text)[:4]}" if dropped else plain


def parse_pipeline(text: str) -> CompressionPipeline:
    """Parse a pipeline, `NAME:VALUE | NAME:VALUE`.

    Raises:
        UnknownName: there is no such compression.
        BadOption: an unknown option, an invalid value, or a step that would undo an earlier one.
    """
    parts = [part.strip() for part in text.split("|")]
    if not all(parts):
        raise BadOption(f"Expected NAME:VALUE | NAME:VALUE. Received: compress={text!r}, which has an empty step.")
    steps = tuple(map(parse_step, parts))
    latest, last = -1, ""
    for step in steps:
        name, stage, next_stage = step.compression.name, step.compression.stage, step.compression.next_stage
        if stage < latest:
            raise BadOption(
                f"{name} would undo {last}, or cannot follow it. Received: compress={text!r}. "
                f"Put {name} first, or omit one."
            )
        if next_stage > latest:
            latest, last = next_stage, name
    return CompressionPipeline(steps)


def check_formats(pipeline: CompressionPipeline, names: Sequence[str]) -> None:
    """Raise UnsupportedExport for a format that a step of the pipeline does not support."""
    for step in pipeline.steps:
        supported = step.compression.formats
        unsupported = [name for name in names if supported and name not in supported]
        if unsupported:
            raise UnsupportedExport(
                f"{step.compression.name} supports {', '.join(supported)}. Received: format={unsupported[0]}"
            )


@dataclasses.dataclass(frozen=True)
class CompressedModel:
    """The result of a compression pipeline.

    Args:
        model: the compressed model.
        writers: `write` functions of the formats that a step writes itself, by format.
        record: the pipeline, the metrics of each step, and the guarantees; JSON-safe.
    """

    model: _keras.Model
    writers: Mapping[str, Callable[..., None]]
    record: dict[str, Any]


def compress(model: _keras.Model, pipeline: CompressionPipeline, run: Run, data: Pipeline) -> CompressedModel:
    """Run a compression pipeline in the converting child process; saved steps are loaded.

    Args:
        model: the run's model in float32; it may be changed.
        pipeline: the steps.
        run: a finished run.
        data: the data pipeline of the run.

    Raises:
        BadOption, UnsupportedExport: before any training, if a step cannot be applied.
        ExportError: a guarantee of a step does not hold.
    """
    benches = workbenches(pipeline.steps, run, data)
    planned = model
    for step, workbench in zip(pipeline.steps, benches, strict=True):
        planned = step.compression.plan(planned, step.options, workbench)
    before = measure_model(model, benches[0])
    records, guarantees, writers = [], {}, {}
    for step, workbench in zip(pipeline.steps, benches, strict=True):
        model, record = load_step(workbench.folder) or run_step(step, model, workbench)
        records.append({**record, "path": workbench.folder.relative_to(run.path).as_posix()})
        guarantees |= record["guarantees"]
        writers |= step.compression.writers(step.options, workbench)
    check_model(model, guarantees)
    names = {"pipeline": pipeline.text, "slug": pipeline.slug}
    return CompressedModel(model, writers, {**names, "before": before, "steps": records, "guarantees": guarantees})


def save_record(compressed: CompressedModel, scratch: Path) -> None:
    """Save the record and the masks of a compressed model for the process that verifies the artifacts."""
    write_json(scratch / RECORD, compressed.record)
    # A slash in a name would be a folder of the archive.
    masks = {name.replace("/", "|"): mask for name, mask in nonzero_masks(compressed.model).items()}
    write_atomic(scratch / MASKS, lambda path: np.savez_compressed(path, **masks))


def verify_guarantees(
    pipeline: CompressionPipeline, request: FormatRequest, artifact: Path, scratch: Path
) -> dict[str, Any]:
    """Check the guarantees of a pipeline in an artifact.

    Args:
        pipeline: the pipeline.
        request: the format of the artifact.
        artifact: path of the artifact.
        scratch: folder of `save_record`.

    Returns:
        The record for the manifest: pipeline, steps, guarantees, facts and the values found; JSON-safe.

    Raises:
        ParityError: a guarantee does not hold.
    """
    record = read_json(scratch / RECORD)
    facts = scratch / request.slug / FACTS
    record["facts"] = read_json(facts) if facts.is_file() else {}
    return record | _inspect_guarantees(pipeline, request.format.name, artifact, scratch / MASKS, record)


def reverify_guarantees(record: dict[str, Any], fmt: str, artifact: Path, masks: Path) -> dict[str, Any]:
    """Check the guarantees in the record of a manifest again.

    Args:
        record: the result of `verify_guarantees`.
        fmt: name of the artifact's format.
        artifact: path of the artifact.
        masks: the masks of `save_record`.

    Returns:
        The record with the values found now.

    Raises:
        ParityError: a guarantee does not hold.
        RunError: the masks are missing.
    """
    if not masks.is_file():
        raise RunError(f"Expected {masks.name} next to a compressed artifact. Received: {masks.parent}. Export again.")
    return record | _inspect_guarantees(parse_pipeline(record["pipeline"]), fmt, artifact, masks, record)


def _inspect_guarantees(
    pipeline: CompressionPipeline, fmt: str, artifact: Path, masks: Path, record: dict[str, Any]
) -> dict[str, Any]:
    """Return the values found for the guarantees, and the facts including those that each step inspects."""
    nonzero = {name.replace("|", "/"): mask for name, mask in read_npz(masks).items()}
    facts = dict(record["facts"])
    for step in pipeline.steps:
        facts |= step.compression.inspect(fmt, artifact, record["facts"])
    return {"facts": facts, "found": check_artifact(artifact, record["guarantees"], nonzero)}
