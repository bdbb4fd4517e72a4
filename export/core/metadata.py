"""The metadata that every artifact carries: model, task, input, output and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zoo.specs.tasks import task_of


def input_name(name: str, shape: Sequence[int]) -> str:
    """Return the name of an artifact's input: "image" for "features" of three axes, else the model's own."""
    return "image" if name == "features" and len(shape) == 3 else name


def output_names(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the outputs in a model's metadata: one, or one for each of several targets."""
    several = metadata.get("outputs")
    return tuple(output["name"] for output in several) if several else (metadata["output"],)


def input_names(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the inputs in a model's metadata: one, or several of a user's model."""
    several = metadata.get("inputs")
    return tuple(entry["name"] for entry in several) if several else (metadata["input"],)


def model_metadata(
    model: str, task: str, signature: tuple[str, str, tuple[int, ...]], labels: Sequence[str]
) -> dict[str, Any]:
    """Return the metadata of a model.

    Args:
        model: its name.
        task: its task.
        signature: name, dtype and shape of its input; of sequence-to-sequence models the shape has both lengths.
        labels: names of the classes, tags, labels or targets.

    Returns:
        The metadata; several targets have no "output", but "outputs" with the metadata of their data.
    """
    name, dtype, shape = signature
    described = {"model": model, "task": task, "input": name, "dtype": dtype}
    if output := task_of(task).output:
        described["output"] = output
    return described | {"shape": list(shape), "labels": list(labels)}
