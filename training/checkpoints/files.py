"""Checkpoints: the complete training state in one safetensors file, written atomically.

The file contains every variable of the model (weights, batch-norm averages, states of random generators), of the
optimizer (moments, step) and of the running metrics. Its metadata contains the progress and a checksum, as safetensors
has none: CRC-32, which detects every damage of up to four consecutive bytes, at 4,030 MB/s on one Zen 5 core (SHA-256:
1,684, BLAKE2b: 905).
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypedDict

from training.common.jax_state import sync_state
from zoo.common.errors import RunError
from zoo.common.files import finite, write_atomic
from zoo.common.lazy import np
from zoo.reading.arrays import open_safetensors, read_safetensors
from zoo.reading.files import Refusal, reading
from zoo.reading.json_files import parse_json

# The safetensors name of a dtype, and its bytes.
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


CHECKSUM = "crc32"
# The placeholder of the checksum while the file is written; the checksum includes it.
UNKNOWN = "-" * 8
_BLANK = f'"{CHECKSUM}": "{UNKNOWN}"'.encode()


class Metadata(TypedDict):
    """The metadata of a checkpoint."""

    crc32: str
    progress: str


class Header(TypedDict):
    """The header of a checkpoint: its metadata, and the place of each array."""

    __metadata__: Metadata


class Stored(TypedDict):
    """The progress as it is stored."""

    epoch: int
    step: int
    best: float | None
    best_epoch: int
    seconds: float


class DamagedCheckpoint(RunError):
    """A missing or damaged checkpoint."""


REFUSAL = Refusal("Expected a readable checkpoint", DamagedCheckpoint, "")


@dataclasses.dataclass(frozen=True)
class Progress:
    """The progress of a training.

    Args:
        epoch: completed epochs.
        step: completed steps of the next epoch; all of them if only its validation is missing.
        best: best value of the validation metric that selects the best weights; -1 before the first.
        best_epoch: the epoch, from 1, of the best value.
        seconds: time spent training, over all sessions.
    """

    epoch: int = 0
    step: int = 0
    best: float = -1.0
    best_epoch: int = 0
    seconds: float = 0.0


def save_checkpoint(path: Path, model: Any, progress: Progress, *, before: Callable[[], None] = lambda: None) -> None:
    """Write the state of a compiled model.

    Args:
        path: the file; it stays unchanged if writing fails.
        model: a compiled and built model.
        progress: the progress of its training.
        before: called once the new file is on the disk, right before it replaces the old one.

    Raises:
        RunError: the file cannot be written.
    """
    variables = dict(_variables(model))

    def write(temporary: Path) -> None:
        temporary.parent.mkdir(exist_ok=True)
        _write(temporary, variables, json.dumps(finite(dataclasses.asdict(progress))))
        before()

    write_atomic(path, write, parents=False)


def _write(path: Path, variables: dict[str, Any], progress: str) -> None:
    """Write a safetensors file and sync it, one variable after the other.

    The writer of the library needs memory for three copies of all variables.
    """
    header: dict[str, Any] = {"__metadata__": {CHECKSUM: UNKNOWN, "progress": progress}}
    end = 0
    for name, variable in variables.items():
        dtype, size = DTYPES[variable.dtype]
        start, end = end, end + int(np.prod(variable.shape)) * size
        header[name] = {"dtype": dtype, "shape": list(variable.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    # The data starts at a multiple of 8.
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    with open(path, "wb") as file:
        file.write(head)
        checksum = zlib.crc32(head)
        for variable in variables.values():
            content = np.ascontiguousarray(variable).reshape(-1).view("uint8")
            file.write(content)
            checksum = zlib.crc32(content, checksum)
        file.seek(head.index(UNKNOWN.encode()))
        file.write(f"{checksum:08x}".encode())
        file.flush()
        os.fsync(file.fileno())


def _check(path: Path) -> None:
    """Raise ValueError if a file does not match its checksum, or has none."""
    # Map the file once: a training may replace it by the next checkpoint at any moment.
    content = np.memmap(path, "uint8", "r")
    header = content[: 8 + int.from_bytes(content[:8], "little")].tobytes()
    stored = parse_json(header[8:], Header)["__metadata__"][CHECKSUM]
    # The checksum is of the file with the placeholder.
    checksum = zlib.crc32(header.replace(f'"{CHECKSUM}": "{stored}"'.encode(), _BLANK, 1))
    if f"{zlib.crc32(content[len(header) :], checksum):08x}" != stored:
        raise ValueError("the content does not match the checksum: the file is damaged")


def load_checkpoint(path: Path, model: Any) -> Progress:
    """Load a checkpoint into a compiled and built model.

    Returns:
        The progress of the training.

    Raises:
        DamagedCheckpoint: the file is damaged.
        RunError: it belongs to another model.
    """
    arrays, progress = _read(path)
    variables = dict(_variables(model))
    # Checkpoints of earlier versions do not include the state of L-BFGS.
    expected = {name for name in variables if name in arrays or not name.startswith("search/")}
    if set(arrays) != expected or any(arrays[n].shape != tuple(v.shape) for n, v in variables.items() if n in expected):
        raise RunError(
            f"Expected a checkpoint of the model {model.name!r}. Received: {path}, of another model. Use its own run."
        )
    for name in expected:
        variables[name].assign(arrays[name])
    return progress


def load_weights(path: Path, model: Any) -> None:
    """Load only the weights of a checkpoint into a model, compiled or not; raises RunError."""
    arrays, _ = _read(path)
    variables = dict(_named("model", model.variables))
    for name, variable in variables.items():
        if name not in arrays or arrays[name].shape != tuple(variable.shape):
            raise RunError(
                f"Expected a checkpoint of the model {model.name!r}. Received: {path}, which lacks {name}. "
                "Use its own run."
            )
    for name, variable in variables.items():
        variable.assign(arrays[name])


def _read(path: Path) -> tuple[dict[str, Any], Progress]:
    """Return the arrays and the progress of a file, or raise DamagedCheckpoint."""
    with reading(path, REFUSAL):
        _check(path)
    with open_safetensors(path, REFUSAL) as file:
        arrays, metadata = read_safetensors(file)
        return arrays, _progress(metadata["progress"])


def _progress(text: str) -> Progress:
    """Return the progress in the metadata of a checkpoint; raises ValueError."""
    values = parse_json(text, Stored)
    values["best"] = math.nan if values["best"] is None else values["best"]
    progress = Progress(**{field.name: values[field.name] for field in dataclasses.fields(Progress)})
    if min(progress.epoch, progress.step, progress.best_epoch, progress.seconds) < 0:
        raise ValueError(f"its progress is {text[:100]}")
    return progress


def _variables(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield every variable that training changes, with a unique name."""
    sync_state(model)
    yield from _named("model", model.variables)
    yield from _named("optimizer", model.optimizer.variables)
    yield from _named("metrics", model.metrics_variables)
    yield from _named("search", getattr(model, "search", ()))


def _named(group: str, variables: Any) -> Iterator[tuple[str, Any]]:
    # The model's code determines positions; paths contain numbers that depend on what the process built before.
    for i, variable in enumerate(variables):
        yield f"{group}/{i:04d}/{variable.name}", variable
