"""What a run computes on, and how its steps are taken there: by Keras' own `fit` on one device."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from training.common.sharding import WHOLE, Shard


@dataclasses.dataclass(frozen=True)
class Device:
    """What a run computes on.

    Args:
        strategy: the tf.distribute strategy.
        name: "one", "mirrored", "multiworker" or "tpu".
        precision: a Keras dtype policy.
        jit_compile: whether XLA compiles the step.
        backend: that of Keras.
        share: which part of each batch this process computes.
        interruptible: whether an evaluation may be left off at any moment.
        repeatable: whether a step can be taken again, on a batch at hand, to look for what was not finite first.
    """

    strategy: Any
    name: str
    precision: str
    jit_compile: bool
    backend: str = "tensorflow"
    share: Shard = WHOLE
    interruptible: bool = True
    repeatable: bool = True

    @property
    def replicas(self) -> int:
        """How many devices share a batch, over all workers."""
        return self.strategy.num_replicas_in_sync

    @property
    def workers(self) -> int:
        """How many processes train together."""
        return self.share.workers

    @property
    def worker(self) -> int:
        """Which of them this is, from 0."""
        return self.share.worker

    @property
    def chief(self) -> bool:
        """Whether this is the process that writes."""
        return self.worker == 0

    def check(self, pipeline: Any) -> None:
        """Raise BadOption for data that this device cannot learn from."""

    def running(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which a model is built, and steps are compiled and taken."""
        return contextlib.nullcontext()

    def prepare(self, model: Any) -> None:
        """Let a compiled and built model learn on this device."""

    def fit(self, model: Any, pipeline: Any, epoch: int, skip: int, callbacks: Sequence[Any]) -> dict[str, float]:
        """Train one epoch (from 0) after its first `skip` steps.

        Returns:
            The figures of the epoch.
        """
        history = model.fit(
            pipeline.train(epoch, skip),
            initial_epoch=epoch,
            epochs=epoch + 1,
            shuffle=False,
            verbose=0,
            callbacks=list(callbacks),
        )
        return {name: float(values[-1]) for name, values in history.history.items()}

    def evaluate(self, model: Any, pipeline: Any, split: str) -> dict[str, Any]:
        """Return the figures of a compiled model on a split."""
        return model.evaluate(pipeline.evaluate(split), return_dict=True, verbose=0)

    def agree(self, signal: int, due: bool, *, now: bool = False) -> tuple[int, bool]:
        """Tell all workers what this one is asked for, and return what all of them are to do after this step.

        Args:
            signal: the signal that asks to stop, 0 if none does.
            due: whether it is time for a checkpoint.
            now: wait for the others; else what is told is heard with the next step, which costs nothing.
        """
        return signal, due

    def barrier(self) -> None:
        """Wait until all workers have come here."""

    def save_reference_logits(self, run: Any, pipeline: Any, build: Callable[[], Any]) -> None:
        """Leave what an export needs to prove that another backend computes the same; see `training.distributed.jax_device`."""
