"""A chain of compressions, `distil:resnet_tiny | prune:0.8 | qat`: refused before it trains, or done step by step.

Each step leaves its network, and what it cost and gained, in RUN/compressed/STEP-KEY. The key stands for the trained
model and all steps so far, so that a chain goes on at the step that failed and chains share the steps they share.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.compression.channels import multiply_adds
from export.compression.guarantees import check_network, count_zeros, inspect, masks_of
from export.compression.workbench import Workbench, load_compressed
from export.core.compression import Step, parse_step
from export.core.keras_graph import check_same, probe
from export.core.manifest import MASKS, digest_file
from training.data.pipeline.pipeline import Pipeline
from training.runs.run import Run
from zoo.common.errors import BadOption, RunError, UnsupportedExport
from zoo.common.files import read_json, write_atomic, write_json
from zoo.common.lazy import np

if TYPE_CHECKING:
    import keras as _keras

    from export.core.format import FormatRequest

MODEL, RECORD, STATE = "model.keras", "step.json", "state.safetensors"
COMPRESSION, FACTS = "compression.json", "facts.json"
ALLOWED = 1e-6  # of a network that was saved and loaded


@dataclasses.dataclass(frozen=True)
class CompressionPipeline:
    """Steps in the order in which they are done.

    Args:
        steps: at least one.
    """

    steps: tuple[Step, ...]

    @property
    def text(self) -> str:
        """How it reads."""
        return " | ".join(step.text for step in self.steps)

    @property
    def slug(self) -> str:
        """What goes into the name of a folder; where characters are lost, with a few digits of the text's digest."""
        plain = re.sub(r"[^a-z0-9.]+", "-", self.text.lower().replace(" | ", "-")).strip("-")
        lost = re.search(r"[^a-zA-Z0-9.:| ]", self.text) or len(plain) > 60
        return f"{plain[:60]}-{_digest(self.text)[:4]}" if lost else plain


def parse_pipeline(text: str) -> CompressionPipeline:
    """Return the chain that a text asks for.

    Raises:
        UnknownName: no such compression.
        BadOption: an option or value that cannot be, or steps in an order in which one would undo another.
    """
    parts = [part.strip() for part in text.split("|")]
    if not all(parts):
        raise BadOption(f"A chain is NAME:VALUE | NAME:VALUE. Received: compress={text!r}, which has an empty step.")
    steps = tuple(map(parse_step, parts))
    reached, last = -1, ""
    for step in steps:
        stage, then = step.compression.stage, step.compression.then
        if stage < reached:
            raise BadOption(
                f"{step.compression.name} would undo {last}, or cannot follow it. Received: compress={text!r}. "
                f"Put {step.compression.name} first, or leave one out."
            )
        if then > reached:
            reached, last = then, step.compression.name
    return CompressionPipeline(steps)


def check_formats(chain: CompressionPipeline, names: Sequence[str]) -> None:
    """Raise UnsupportedExport for a format that a step of the chain has no meaning for."""
    for step in chain.steps:
        unfit = [name for name in names if step.compression.only and name not in step.compression.only]
        if unfit:
            raise UnsupportedExport(
                f"{step.compression.name} is for {', '.join(step.compression.only)}. Received: format={unfit[0]}"
            )


@dataclasses.dataclass(frozen=True)
class Made:
    """What a chain made.

    Args:
        network: the smaller network.
        writers: formats that a step writes itself.
        content: JSON-safe: the chain, what each step cost and gained, what is claimed of the artifact.
    """

    network: _keras.Model
    writers: Mapping[str, Callable[..., None]]
    content: dict[str, Any]


def compress(network: _keras.Model, chain: CompressionPipeline, run: Run, pipeline: Pipeline) -> Made:
    """Do what is left to do of a chain; in the child process that converts.

    Args:
        network: the run's, in float32; it may be changed.
        chain: the steps.
        run: a finished run.
        pipeline: its data.

    Raises:
        BadOption, UnsupportedExport: before anything is trained, a step that cannot be had.
        ExportError: a step did not keep what it or another one claims.
    """
    benches = _benches(chain, run, pipeline)
    planned = network
    for step, workbench in zip(chain.steps, benches, strict=True):
        planned = step.compression.plan(planned, step.options, workbench)
    before = figures(network, benches[0])
    records, guarantees, writers = [], {}, {}
    for step, workbench in zip(chain.steps, benches, strict=True):
        network, record = _done(workbench.folder) or _do(step, network, workbench)
        records.append({**record, "path": workbench.folder.relative_to(run.path).as_posix()})
        guarantees |= record["claims"]
        writers |= step.compression.writers(step.options, workbench)
    check_network(network, guarantees)
    content = {"chain": chain.text, "slug": chain.slug, "before": before, "steps": records, "claims": guarantees}
    return Made(network, writers, content)


def _benches(chain: CompressionPipeline, run: Run, pipeline: Pipeline) -> list[Workbench]:
    """Return the place of each step."""
    key, found = digest_file(run.model_path), []
    for step in chain.steps:
        key = _digest(f"{key} | {step.text}")
        found.append(Workbench(run.recipe, pipeline, run.compressed / f"{step.compression.name}-{key[:12]}"))
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def figures(network: _keras.Model, workbench: Workbench) -> dict[str, Any]:
    """Return what a network costs and is worth: accuracy on the test split, parameters, multiply-adds and zeros."""
    return {
        "accuracy": workbench.accuracy(network),
        "parameters": int(sum(np.prod(v.shape) for v in network.trainable_weights)),
        "multiply_adds": multiply_adds(network),
        "zeros": sum(count_zeros(network).values()),
    }


def _done(folder: Path) -> tuple[Any, dict[str, Any]] | None:
    """Return the network and the record of a step that was done before, and is as it was written."""
    if not (folder / RECORD).is_file():
        return None
    record = read_json(folder / RECORD)
    if not (folder / MODEL).is_file() or digest_file(folder / MODEL) != record["sha256"]:
        return None
    return load_compressed(folder / MODEL), record


def _do(step: Step, network: Any, workbench: Workbench) -> tuple[Any, dict[str, Any]]:
    """Do a step and write its network and its record, the record last."""
    start, path = time.monotonic(), workbench.folder / MODEL
    workbench.folder.mkdir(parents=True, exist_ok=True)
    made = step.compression.apply(network, step.options, workbench)
    guarantees = step.compression.guarantees(made, step.options)
    write_atomic(path, lambda beside: made.save(beside, include_optimizer=False))
    loaded = load_compressed(path)
    if len(made.inputs) == 1 and str(made.inputs[0].dtype) == "float32":
        check_same(made, loaded, probe(made), ALLOWED)
    check_network(loaded, guarantees)
    record = {
        "step": step.text,
        "options": dataclasses.asdict(step.options),
        **figures(loaded, workbench),
        "bytes": path.stat().st_size,
        "gzip_bytes": len(gzip.compress(path.read_bytes(), 6)),
        "seconds": time.monotonic() - start,
        "claims": guarantees,
        "sha256": digest_file(path),
    }
    write_json(workbench.folder / RECORD, record)
    (workbench.folder / STATE).unlink(missing_ok=True)
    return loaded, record


def leave(made: Made, scratch: Path) -> None:
    """Write, for the process that judges the artifacts, what a chain claims of them."""
    write_json(scratch / COMPRESSION, made.content)
    write_atomic(scratch / MASKS, lambda path: np.savez_compressed(path, **_flat(masks_of(made.network))))


def _flat(masks: Mapping[str, Any]) -> dict[str, Any]:
    # A slash in a name would be a folder of the archive.
    return {name.replace("/", "|"): mask for name, mask in masks.items()}


def prove(chain: CompressionPipeline, wanted: FormatRequest, written: Path, scratch: Path) -> dict[str, Any]:
    """Compare what a chain claims with what stands in an artifact.

    Args:
        chain: what was done.
        wanted: the artifact's format.
        written: the artifact.
        scratch: what `leave` wrote to.

    Returns:
        JSON-safe, for the manifest: the chain, its steps, its claims and what was found.

    Raises:
        ParityError: a claim does not hold.
    """
    content = read_json(scratch / COMPRESSION)
    facts = scratch / wanted.slug / FACTS
    content["facts"] = read_json(facts) if facts.is_file() else {}
    return content | _looked_up(chain, wanted.format.name, written, scratch / MASKS, content)


def prove_again(content: dict[str, Any], fmt: str, written: Path, masks: Path) -> dict[str, Any]:
    """Compare once more what a manifest claims with what stands in the artifact.

    Args:
        content: what `prove` returned.
        fmt: the artifact's format.
        written: the artifact.
        masks: the file that `leave` wrote.

    Returns:
        The same with what was found now.

    Raises:
        ParityError: a claim does not hold.
        RunError: there are no masks, which this zoo compares zeros with.
    """
    if not masks.is_file():
        raise RunError(f"Expected {masks.name} beside a compressed artifact. Received: {masks.parent}. Export again.")
    return content | _looked_up(parse_pipeline(content["chain"]), fmt, written, masks, content)


def _looked_up(
    chain: CompressionPipeline, fmt: str, written: Path, masks: Path, content: dict[str, Any]
) -> dict[str, Any]:
    """Return what was found of what is claimed, and the facts with those that each step looks for itself."""
    with np.load(masks, allow_pickle=False) as file:
        kept = {name.replace("|", "/"): file[name] for name in file.files}
    facts = dict(content["facts"])
    for step in chain.steps:
        facts |= step.compression.inspect(fmt, written, content["facts"])
    return {"facts": facts, "found": inspect(written, content["claims"], kept)}
