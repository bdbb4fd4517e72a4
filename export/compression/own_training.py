"""Compression while a user's own `fit` runs: no recipe, no wrapper layers, and the same model before and after."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from export.compression.masks import Masks
from export.compression.pruning import Pruning
from zoo.common.errors import BadOption
from zoo.common.lazy import keras

if TYPE_CHECKING:
    import keras as _keras


@contextlib.contextmanager
def pruned_fit(model: _keras.Model, pruning: Pruning, steps: int | None = None) -> Iterator[Any]:
    """Prune a compiled model while `fit` runs in a `with` statement; see `export.pruning`."""
    if not getattr(model, "compiled", False):
        raise BadOption(f"Expected a compiled model. Received: {model.name!r}. Call model.compile first.")
    if steps is not None and steps < 1:
        raise BadOption(f"steps must be at least 1. Received: steps={steps}.")
    masks = Masks(model, pruning, steps or 1)
    with masks.attached():
        # A step that was compiled before has no masks.
        model.make_train_function(force=True)
        try:
            yield _callback(masks, steps)
            masks.check_finished()
        finally:
            model.train_function = None
    # The next training compiles its step again, without masks.


def _callback(masks: Masks, steps: int | None) -> Any:
    """Return a callback that updates the masks, counted from the first step of this training."""

    class Prune(keras.callbacks.Callback):
        """Raises the sparsity step by step."""

        def __init__(self) -> None:
            super().__init__()
            self.done = 0

        def on_train_begin(self, logs: Any = None) -> None:
            """Plan the schedule over all steps of the training."""
            if self.done == 0:
                masks.plan(steps or _planned(self.params))
                masks.update(0)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            """Update the masks where it is scheduled."""
            self.done += 1
            masks.update(self.done)

    return Prune()


def _planned(params: Any) -> int:
    """Return the steps of a training from what Keras says to its callbacks."""
    epochs, steps = params.get("epochs"), params.get("steps")
    if not epochs or not steps:
        raise BadOption(
            f"Pruning needs the number of steps. Received: epochs={epochs}, steps={steps} of fit, for data of unknown "
            "length. Pass steps= to export.pruning, or steps_per_epoch= to fit."
        )
    return epochs * steps
