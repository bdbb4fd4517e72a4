"""Checkpoints: everything that training goes on from, in one safetensors file, whole or not there.

The file holds every variable of the model (weights, batch-norm averages, states of random generators), of the
optimizer (moments, step) and of the running metrics, and as metadata the place in the data.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training._files import write_atomic
from zoo._errors import RunError
from zoo._lazy import np

# What safetensors calls a dtype, and its bytes.
DTYPES = {
    "bool": ("BOOL", 1),
    "int32": ("I32", 4),
    "int64": ("I64", 8),
    "uint8": ("U8", 1),
    "uint32": ("U32", 4),
    "float16": ("F16", 2),
    "bfloat16": ("BF16", 2),
    "float32": ("F32", 4),
    "float64": ("F64", 8),
}


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where training stands.

    Args:
        epoch: epochs completed.
        step: steps completed in the epoch after them.
        best: best validation figure so far, by which the task tells the best weights; -1 before the first.
        best_epoch: the epoch, from 1, that reached it.
        seconds: time spent training, over all sessions.
    """

    epoch: int = 0
    step: int = 0
    best: float = -1.0
    best_epoch: int = 0
    seconds: float = 0.0


def save_checkpoint(path: Path, model: Any, progress: Progress) -> None:
    """Write the state of a compiled model; raises RunError if that fails, and then `path` is as it was."""
    variables = dict(_variables(model))
    write_atomic(path, lambda beside: _write(beside, variables, json.dumps(dataclasses.asdict(progress))))


def _write(path: Path, variables: dict[str, Any], progress: str) -> None:
    """Write a safetensors file, one variable after the other.

    The library's own writer holds all of them three times over, which a training has no memory for.
    """
    header: dict[str, Any] = {"__metadata__": {"progress": progress}}
    end = 0
    for name, variable in variables.items():
        dtype, size = DTYPES[variable.dtype]
        start, end = end, end + int(np.prod(variable.shape)) * size
        header[name] = {"dtype": dtype, "shape": list(variable.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    # The data begins at a multiple of 8.
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for variable in variables.values():
            file.write(np.ascontiguousarray(variable).reshape(-1).view("uint8"))


def load_checkpoint(path: Path, model: Any) -> Progress:
    """Put a saved state into a compiled and built model.

    Returns:
        Where training stood.

    Raises:
        RunError: the file is damaged, or of another model.
    """
    arrays, progress = _read(path)
    variables = dict(_variables(model))
    if set(arrays) != set(variables) or any(arrays[n].shape != tuple(v.shape) for n, v in variables.items()):
        raise RunError(f"Expected a checkpoint of the model {model.name!r}. Received: {path}, of another one.")
    for name, variable in variables.items():
        variable.assign(arrays[name])
    return progress


def load_weights(path: Path, model: Any) -> None:
    """Put only the weights of a checkpoint into a model, compiled or not; raises RunError."""
    arrays, _ = _read(path)
    variables = dict(_named("model", model.variables))
    for name, variable in variables.items():
        if name not in arrays or arrays[name].shape != tuple(variable.shape):
            raise RunError(f"Expected a checkpoint of the model {model.name!r}. Received: {path}, which lacks {name}.")
    for name, variable in variables.items():
        variable.assign(arrays[name])


def _read(path: Path) -> tuple[dict[str, Any], Progress]:
    """Return the arrays and the progress of a file, or raise RunError in one line."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            return arrays, Progress(**json.loads(file.metadata()["progress"]))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"Expected a readable checkpoint. Received: {path}: {error}") from error


def _variables(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield every variable that training changes, under a name of its own."""
    yield from _named("model", model.variables)
    yield from _named("optimizer", model.optimizer.variables)
    yield from _named("metrics", model.metrics_variables)


def _named(group: str, variables: Any) -> Iterator[tuple[str, Any]]:
    # Positions are fixed by the model's code; paths hold numbers that count what the process has built before.
    for i, variable in enumerate(variables):
        yield f"{group}/{i:04d}/{variable.name}", variable
