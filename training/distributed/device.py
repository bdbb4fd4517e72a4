"""The device of a run, and how it takes steps: by Keras' own `fit` on one device."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from training.common.sharding import WHOLE, Shard


@dataclasses.dataclass(frozen=True)
class Device:
    """The hardware that a run computes on.

    Args:
        strategy: the tf.distribute strategy.
        name: "one", "mirrored", "multiworker" or "tpu".
        precision: a Keras dtype policy.
        jit_compile: whether XLA compiles the step.
        backend: the Keras backend.
        shard: the part of each batch that this process computes.
        interruptible: whether an evaluation can be interrupted at any moment.
        repeatable: whether a step can be repeated on its batch, to find the first value that is not finite.
    """

    strategy: Any
    name: str
    precision: str
    jit_compile: bool
    backend: str = "tensorflow"
    shard: Shard = WHOLE
    interruptible: bool = True
    repeatable: bool = True

    @property
    def replicas(self) -> int:
        """Number of devices that share a batch, over all workers."""
        return self.strategy.num_replicas_in_sync

    @property
    def workers(self) -> int:
        """Number of processes that train together."""
        return self.shard.workers

    @property
    def worker(self) -> int:
        """Index of this process, from 0."""
        return self.shard.worker

    @property
    def chief(self) -> bool:
        """Whether this process writes files."""
        return self.worker == 0

    def check(self, pipeline: Any) -> None:
        """Raise BadOption for data that this device does not support."""

    def running(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which models are built, and steps are compiled and taken."""
        return contextlib.nullcontext()

    def adapt_optimizer(self, cls: Any) -> Any:
        """Return a Keras optimizer class, or a subclass of it that this device needs."""
        return cls

    def prepare(self, model: Any) -> None:
        """Prepare a compiled and built TrainingModel for steps on this device."""

    def fit(self, model: Any, pipeline: Any, epoch: int, skip: int, callbacks: Sequence[Any]) -> dict[str, float]:
        """Train one epoch (from 0) after its first `skip` steps.

        Returns:
            The metrics of the epoch.
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
        """Return the metrics of a compiled model on a split."""
        return model.evaluate(pipeline.evaluate(split), return_dict=True, verbose=0)

    def synchronize(self, signal: int, save: bool, *, wait: bool = False) -> tuple[int, bool]:
        """Share this worker's requests with all workers; return what all of them do after this step.

        Args:
            signal: the signal that requests a stop, 0 for none.
            save: whether a checkpoint is scheduled.
            wait: wait for the other workers; else they receive the requests with the next step, at no cost.
        """
        return signal, save

    def barrier(self) -> None:
        """Wait until all workers reach this point."""

    def save_reference_logits(self, run: Any, pipeline: Any, build: Callable[[], Any]) -> None:
        """Save logits to verify a rebuild on another backend with; see `training.distributed.jax_device`."""
