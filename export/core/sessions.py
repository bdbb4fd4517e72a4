"""Artifacts that their runtime opens as a session, one function of named arrays for each file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from export.core.format import Runtime, Tensor
from export.core.generate import Generator
from export.core.samples import in_batches
from zoo.common.lazy import np

if TYPE_CHECKING:
    import numpy as _np


class Session(Protocol):
    """One opened file.

    Attributes:
        inputs: its inputs.
        outputs: its outputs.
        metadata: what was written into the file, None if nothing was.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    metadata: dict[str, Any] | None

    def run(self, values: dict[str, _np.ndarray]) -> list[_np.ndarray]:
        """Return all outputs."""


class SessionRuntime(Runtime):
    """A file that gives logits.

    Args:
        session: the file.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.inputs, self.outputs = session.inputs, session.outputs
        self.batch, self.metadata = self.inputs[0].shape[0], session.metadata

    def __call__(self, inputs: _np.ndarray) -> _np.ndarray:
        """Return float32 logits of raw values (n, *shape) or ids."""
        given = self.inputs[0]
        run = self._session.run
        return in_batches(lambda few: run({given.name: few})[0], np.asarray(inputs, given.dtype), self.batch)

    def step(self, inputs: _np.ndarray) -> None:
        """Run once on raw values (n, *shape) of the right dtype."""
        self._session.run({self.inputs[0].name: inputs})


class SessionWriter(Generator):
    """A file for each part of a network that writes sequences.

    Args:
        sessions: the files by the names in `export.core.generate.INTERFACE`.
    """

    def __init__(self, sessions: Mapping[str, Session]) -> None:
        self._sessions = sessions
        self.parts = {part: (session.inputs, session.outputs) for part, session in sessions.items()}
        self.batch, self.metadata = self.inputs[0].shape[0], sessions["encode"].metadata

    def run(self, part: str, values: dict[str, _np.ndarray]) -> dict[str, _np.ndarray]:
        """Run a part; returns float32 values of its outputs."""
        session = self._sessions[part]
        return dict(zip((tensor.name for tensor in session.outputs), session.run(values), strict=True))
