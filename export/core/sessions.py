"""Artifacts that a runtime opens as sessions: one function of named arrays per file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from export.core.generate import Generator
from export.core.runtime import Runtime, Tensor, cast_inputs, inputs_in_order, one_or_named
from export.core.samples import in_batches

if TYPE_CHECKING:
    import numpy as _np


class Session(Protocol):
    """An opened file.

    Attributes:
        inputs: its inputs.
        outputs: its outputs.
        metadata: the metadata in the file, None if there is none.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    metadata: dict[str, Any] | None

    def run(self, values: dict[str, _np.ndarray]) -> list[_np.ndarray]:
        """Return all outputs."""


class SessionRuntime(Runtime):
    """A file with one function.

    Args:
        session: the file.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.inputs, self.outputs = inputs_in_order(session.inputs, session.metadata), session.outputs
        self.batch, self.metadata = self.inputs[0].shape[0], session.metadata

    def __call__(self, inputs: Any) -> Any:
        """Return float32 logits of raw values (n, *shape) or ids; by name if there are several outputs."""
        return in_batches(self._run, cast_inputs(self.inputs, inputs), self.batch)

    def _run(self, batch: dict[str, _np.ndarray]) -> Any:
        values = self._session.run(batch)
        return one_or_named(self.outputs, {t.name: v for t, v in zip(self.outputs, values, strict=True)})

    def step(self, inputs: Any) -> None:
        """Run once on raw values (n, *shape) of the input's dtype."""
        self._session.run(inputs if isinstance(inputs, dict) else {self.inputs[0].name: inputs})


class SessionGenerator(Generator):
    """One file for each part of a sequence-to-sequence model.

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
