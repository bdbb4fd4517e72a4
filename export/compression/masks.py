"""Pruning in Keras itself: weights of small magnitude are held at zero while the others go on learning.

Zhu and Gupta 2017, arXiv:1710.01878: the share of zeros rises as s(t) = S (1 - (1 - t / T)³), and the weights left out
are chosen anew by magnitude on the way. A mask is part of the kernel's constraint, which Keras' optimizers apply after
each update inside the compiled step, whatever kernel made the update.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from export.core.keras_graph import layers_under
from zoo.common.errors import BadOption, ExportError, UnsupportedExport
from zoo.common.lazy import keras, np

if TYPE_CHECKING:
    import keras as _keras
    import numpy as _np

KERNELS = ("kernel", "pointwise_kernel")
POWER = 3


@dataclasses.dataclass(frozen=True)
class Pruning:
    """Which weights are to be zero in the end, and how they get there.

    Of a kernel of `size` weights floor(sparsity * size + 1/2) are zero in the end; with scope "global" the rule holds
    for all kernels together, with `block` for the blocks of each kernel.

    Args:
        sparsity: share of zeros, at least 0 and below 1; `keep` decides it where that is given.
        scope: "layer" for the same share in each kernel, "global" to compare the magnitudes of all kernels.
        keep: (n, m) to keep n of each m neighbouring input channels, such as (2, 4); None for no such pattern.
        block: (inputs, units) of the blocks that dense kernels lose as a whole; None for single weights.
        skip: layers that are left dense, names with * and ?.
        ramp: share of the training by whose end the target is reached; the rest heals.
        updates: how many times the zeros are chosen on the way.
    """

    sparsity: float = 0.8
    scope: str = "layer"
    keep: tuple[int, int] | None = None
    block: tuple[int, int] | None = None
    skip: tuple[str, ...] = ()
    ramp: float = 0.6
    updates: int = 20

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise BadOption(f"sparsity must be at least 0 and below 1. Received: sparsity={self.sparsity}")
        if self.scope not in ("layer", "global"):
            raise BadOption(f"scope must be 'layer' or 'global'. Received: scope={self.scope!r}")
        if self.keep and not (len(self.keep) == 2 and 0 < self.keep[0] < self.keep[1]):
            raise BadOption(f"keep must be (n, m) with 0 < n < m, such as (2, 4). Received: keep={self.keep}")
        if self.block and (len(self.block) != 2 or min(self.block) < 1):
            raise BadOption(f"block must be (inputs, units), each at least 1. Received: block={self.block}")
        if sum(map(bool, (self.keep, self.block, self.scope == "global"))) > 1:
            raise BadOption(
                "keep, block and scope='global' exclude each other. "
                f"Received: keep={self.keep}, block={self.block}, scope={self.scope!r}"
            )
        if not (0 < self.ramp <= 1 and self.updates >= 1):
            raise BadOption(
                "ramp must be above 0 and at most 1, updates at least 1. "
                f"Received: ramp={self.ramp}, updates={self.updates}"
            )


def kernels(network: _keras.Model, pruning: Pruning) -> list[Any]:
    """Return the kernels that are pruned: those of convolutions and dense layers, inside attention too.

    Depthwise kernels, embeddings, biases and whatever normalizes stay dense.

    Raises:
        BadOption: a kernel cannot have the pattern, nothing is left to prune, or a name in `skip` fits no layer.
        UnsupportedExport: Keras runs on JAX, which would compile the masks in as constants.
    """
    if keras.backend.backend() != "tensorflow":
        raise UnsupportedExport(
            f"Pruning needs Keras on TensorFlow. Received: backend={keras.backend.backend()!r}. "
            "Run again with KERAS_BACKEND=tensorflow."
        )
    layers = list(layers_under(network))
    for pattern in pruning.skip:
        if not fnmatch.filter([layer.name for layer in layers], pattern):
            raise BadOption(f"skip must name layers of {network.name}. Received: skip={pattern!r}")
    found = [v for layer in layers if not _skipped(layer, pruning) for v in layer.weights if v.name in KERNELS]
    unique = list({id(v): v for v in found}.values())
    if not unique:
        raise BadOption(f"{network.name} has no kernel to prune. Received: skip={pruning.skip}")
    for variable in unique:
        _check_pattern(variable, pruning)
    return unique


def _skipped(layer: Any, pruning: Pruning) -> bool:
    depthwise = isinstance(layer, (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D))
    return depthwise or any(fnmatch.fnmatch(layer.name, pattern) for pattern in pruning.skip)


def _check_pattern(variable: Any, pruning: Pruning) -> None:
    """Raise BadOption for a kernel that cannot have the pattern."""
    shape = tuple(variable.shape)
    if pruning.keep and shape[-2] % pruning.keep[1]:
        raise BadOption(
            f"{pruning.keep[0]}:{pruning.keep[1]} needs a multiple of {pruning.keep[1]} input channels. "
            f"Received: {variable.path} with {shape[-2]}. Leave it dense: skip={variable.path.split('/')[-2]}"
        )
    if pruning.block and len(shape) != 2:
        raise BadOption(
            f"Blocks can be pruned in dense kernels only, LiteRT has no others. Received: {variable.path} of shape "
            f"{shape}. Use sparsity without block, or skip={variable.path.split('/')[-2]}"
        )
    if pruning.block and (shape[0] % pruning.block[0] or shape[1] % pruning.block[1]):
        raise BadOption(
            f"Blocks of {pruning.block} must divide the kernel. Received: {variable.path} of shape {shape}. "
            f"Use other blocks, or skip={variable.path.split('/')[-2]}"
        )


def prune(
    network: _keras.Model,
    pruning: Pruning,
    train: Callable[[Any, int, list[Any]], Any],
    *,
    epochs: int,
    steps_per_epoch: int,
) -> _keras.Model:
    """Prune a network while it trains.

    Args:
        network: what to prune; it is changed.
        pruning: what is to be zero in the end.
        train: trains the network, `train(network, epochs, callbacks)`, and leaves in it the weights of the end.
        epochs: how long.
        steps_per_epoch: updates in an epoch.

    Returns:
        The network, its zeros exact and its kernels free of constraints again.

    Raises:
        BadOption, UnsupportedExport: before training, what cannot be had.
        ExportError: training ended before the target was reached.
    """
    masks = Masks(network, pruning, epochs * steps_per_epoch)
    with masks.attached():
        train(network, epochs, [masks.callback()])
        masks.check_finished()
    return network


def hold(network: _keras.Model) -> contextlib.AbstractContextManager[None]:
    """Keep every zero that the kernels have now while the network trains, in a `with` statement."""
    masks = Masks(network, Pruning(0.0), 1)
    masks.take_zeros()
    return masks.attached()


def zeros(network: _keras.Model, pruning: Pruning) -> dict[str, tuple[int, int]]:
    """Return, by path, how many weights of each kernel are zero, and how many there are."""
    arrays = {variable.path: np.asarray(variable) for variable in kernels(network, pruning)}
    return {path: (int((array == 0).sum()), int(array.size)) for path, array in arrays.items()}


class Masks:
    """The masks of a network's kernels. Zeros and the step say all about them, so that checkpoints need no more.

    Args:
        network: what to prune, its optimizer in place.
        pruning: what is to be zero in the end.
        steps: updates in the whole training.
    """

    def __init__(self, network: _keras.Model, pruning: Pruning, steps: int) -> None:
        self.variables = kernels(network, pruning)
        self._network, self._pruning = network, pruning
        # The last choice must fall on the end of the ramp, or the target is missed.
        self.every = max(1, int(steps * pruning.ramp) // pruning.updates)
        self.end = 0 if pruning.keep else max(1, int(steps * pruning.ramp) // self.every) * self.every
        self._done = -1
        with network.distribute_strategy.scope():
            self.masks = [keras.Variable(np.ones(v.shape, "float32"), trainable=False) for v in self.variables]

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Put the masks into the kernels' constraints; must be entered before the training step is compiled."""
        before = [variable.constraint for variable in self.variables]
        for variable, mask, constraint in zip(self.variables, self.masks, before, strict=True):
            variable.constraint = _constraint(mask, constraint)
        try:
            yield
            self._apply()
        finally:
            for variable, constraint in zip(self.variables, before, strict=True):
                variable.constraint = constraint

    def callback(self) -> Any:
        """Return the Keras callback that chooses the zeros when it is time."""
        update = self.update

        class Choose(keras.callbacks.Callback):
            def on_train_begin(self, logs: Any = None) -> None:
                update(int(self.model.optimizer.iterations.numpy()))

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                update(int(self.model.optimizer.iterations.numpy()))

        return Choose()

    def update(self, step: int) -> None:
        """Choose the zeros of a step (updates made so far), unless that was done; resuming repeats the last choice."""
        due = min(step // self.every * self.every, self.end)
        if due == self._done:
            return
        self._done = due
        arrays = [np.asarray(variable, "float32") for variable in self.variables]
        for mask, chosen in zip(self.masks, choose(arrays, self._pruning, self._share(due)), strict=True):
            mask.assign(chosen)
        self._apply()

    def take_zeros(self) -> None:
        """Take the zeros that the kernels have."""
        for mask, variable in zip(self.masks, self.variables, strict=True):
            mask.assign((np.asarray(variable) != 0).astype("float32"))

    def check_finished(self) -> None:
        """Raise ExportError unless the target was reached."""
        if self._done < self.end:
            raise ExportError(
                f"Training must take at least {self.end} steps to reach the sparsity. Received: {max(self._done, 0)}"
            )

    def _share(self, step: int) -> float:
        """Return the share of zeros at a step: Keras' polynomial decay, here from 0 up."""
        if step >= self.end:
            return self._pruning.sparsity
        schedule = keras.optimizers.schedules.PolynomialDecay
        return float(schedule(0.0, self.end, self._pruning.sparsity, power=POWER)(step))

    def _apply(self) -> None:
        for variable, mask in zip(self.variables, self.masks, strict=True):
            variable.assign(np.asarray(variable) * np.asarray(mask))


def _constraint(mask: Any, before: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    """Return a constraint that masks what another one, if any, leaves."""

    def masked(kernel: Any) -> Any:
        kernel = kernel if before is None else before(kernel)
        return keras.ops.multiply(kernel, keras.ops.cast(mask, kernel.dtype))

    return masked


def choose(arrays: Sequence[_np.ndarray], pruning: Pruning, share: float) -> list[_np.ndarray]:
    """Return for each kernel a mask (float32, 0 where a weight is left out) by magnitude.

    Args:
        arrays: the kernels.
        pruning: the pattern.
        share: share of zeros now; a pattern of n in m has no other than its own.
    """
    if pruning.keep:
        return [_keep_of_each(abs(array), *pruning.keep) for array in arrays]
    if pruning.block:
        return [_blocks(abs(array), pruning.block, share) for array in arrays]
    if pruning.scope == "layer":
        return [_largest(abs(array), share) for array in arrays]
    flat = _largest(np.concatenate([abs(array).ravel() for array in arrays]), share)
    parts = np.split(flat, np.cumsum([array.size for array in arrays])[:-1])
    return [part.reshape(array.shape) for part, array in zip(parts, arrays, strict=True)]


def _largest(size: Any, share: float) -> Any:
    """Return a mask without the floor(share * size + 1/2) smallest."""
    mask, count = np.ones(size.size, "float32"), int(share * size.size + 0.5)
    if count:
        mask[np.argpartition(size.ravel(), count - 1)[:count]] = 0
    return mask.reshape(size.shape)


def _keep_of_each(size: Any, n: int, m: int) -> Any:
    """Return a mask that keeps the n largest of each m neighbouring input channels, which are the axis before last."""
    turned = np.moveaxis(size, -2, -1)
    mask = np.ones(turned.shape, "float32").reshape(-1, m)
    np.put_along_axis(mask, np.argsort(turned.reshape(-1, m), axis=1, kind="stable")[:, : m - n], 0, axis=1)
    return np.moveaxis(mask.reshape(turned.shape), -1, -2)


def _blocks(size: Any, block: tuple[int, int], share: float) -> Any:
    """Return a mask without the blocks whose mean magnitude is smallest."""
    rows, columns = size.shape[0] // block[0], size.shape[1] // block[1]
    means = size.reshape(rows, block[0], columns, block[1]).mean((1, 3))
    return np.kron(_largest(means, share), np.ones(block, "float32")).astype("float32")
