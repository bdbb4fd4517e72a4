"""How several devices learn as one: each step's batch is divided, and into how many parts makes no difference.

Keras' own `fit` does not train under MultiWorkerMirroredStrategy (Keras 3.15: its symbolic build converts a value of
several replicas, and scalar logs are reduced over an axis that they do not have). Elsewhere it clips gradients before
they are added up, draws one mask of dropout for all replicas, and cannot accumulate. So the steps are taken here.
"""

from __future__ import annotations

import dataclasses
import signal as signals
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from training.distributed.device import Device
from zoo.common.lazy import keras, np, tf

# What workers tell each other with each step.
TOLD = ("SIGTERM", "SIGINT", "due")


@dataclasses.dataclass
class Poll:
    """What this worker tells with its next step, and what all told with the last one; see `TOLD`."""

    told: Sequence[float] = (0.0,) * len(TOLD)
    heard: Sequence[float] = (0.0,) * len(TOLD)


@dataclasses.dataclass(frozen=True)
class Replicated(Device):
    """Several devices that share each batch, of this process or of several."""

    # A batch at hand is one replica's part.
    repeatable: bool = False
    poll: Poll = dataclasses.field(default_factory=Poll)

    def prepare(self, model: Any) -> None:
        """Let a compiled and built model learn on all devices."""
        add_up_first(model.optimizer)
        draw_apart(model)
        normalize_together(model)
        model.train_function = self._stepper(model)

    def fit(self, model: Any, pipeline: Any, epoch: int, skip: int, callbacks: Sequence[Any]) -> dict[str, float]:
        """Train one epoch (from 0) after its first `skip` steps; return its figures."""
        told = keras.callbacks.CallbackList(list(callbacks), model=model)
        batches = self._divided(pipeline.train(epoch, skip, self.share))
        told.on_train_begin()
        model.reset_metrics()
        told.on_epoch_begin(epoch)
        for step in range(pipeline.steps_per_epoch - skip):
            told.on_train_batch_begin(step)
            told.on_train_batch_end(step, model.train_function(batches))
        figures = _figures(model)
        told.on_epoch_end(epoch, figures)
        told.on_train_end(figures)
        return figures

    def evaluate(self, model: Any, pipeline: Any, split: str) -> dict[str, Any]:
        """Return the figures of a compiled model on a split, each example looked at by one replica."""
        if model.test_function is None:
            model.test_function = self._judger(model)
        model.reset_metrics()
        for batch in self._divided(pipeline.evaluate(split, self.share)):
            model.test_function(batch)
        return _figures(model)

    def agree(self, signal: int, due: bool, *, now: bool = False) -> tuple[int, bool]:
        """Tell all workers what this one is asked for, and return what all of them are to do after this step."""
        if self.workers == 1:
            return signal, due
        # The clocks of workers differ: the chief's is the one that counts.
        mine = [float(signal == signals.SIGTERM), float(signal == signals.SIGINT), float(due and self.chief)]
        if now:
            heard = self._added_up(mine)
        else:
            heard, self.poll.told = self.poll.heard, mine
        terminate, interrupt, save = (value > 0 for value in heard)
        return (signals.SIGTERM if terminate else signals.SIGINT if interrupt else 0), save

    def barrier(self) -> None:
        """Wait until all workers have come here."""
        if self.workers > 1:
            self._added_up([0.0])

    def _added_up(self, values: Sequence[float]) -> Any:
        """Return the sums of numbers over all replicas."""
        total = self.strategy.run(_all_reduce, args=(tf.constant(values, tf.float32),))
        return self.strategy.experimental_local_results(total)[0].numpy()

    def _divided(self, batches: Any) -> Iterator[Any]:
        """Yield what the replicas here compute together, a part of a batch each; they come one after the other."""
        for parts in zip(*[iter(batches)] * self.share.replicas, strict=False):
            yield self.strategy.experimental_distribute_values_from_function(
                lambda context, parts=parts: parts[context.replica_id_in_sync_group % self.share.replicas]
            )

    def _stepper(self, model: Any) -> Callable[[Iterator[Any]], dict[str, Any]]:
        """Return what takes a step on the next batch of an iterator, and returns the running figures as Keras does."""
        names: list[str] = []

        def replica(batch: Any, told: Any) -> Any:
            logs = model.train_step(batch)
            names[:] = logs
            # Figures of replicas have equal weights, as their parts of a batch are equal.
            values = [tf.cast(logs[name], tf.float32) / self.replicas for name in names]
            return _all_reduce(tf.concat([tf.stack(values), told], 0))

        @tf.function(reduce_retracing=True, autograph=False)
        def step(batch: Any, told: Any) -> Any:
            return self.strategy.run(replica, args=(batch, told))

        def take(batches: Iterator[Any]) -> dict[str, Any]:
            found = step(next(iter(batches)), tf.constant(self.poll.told, tf.float32))
            values = self.strategy.experimental_local_results(found)[0].numpy()
            self.poll.heard = values[len(names) :]
            return dict(zip(names, values.tolist(), strict=False))

        return take

    def _judger(self, model: Any) -> Callable[[Any], None]:
        """Return what looks at a batch, so that the metrics of a model know of it, as Keras' test_step does.

        Where a replica has no rows, the network is shown one of zeros: TensorFlow's fused convolutions give an empty
        batch another shape.
        """

        def replica(batch: Any) -> None:
            x, y = batch
            rows = tf.shape(y)[0]
            outputs = model(tf.nest.map_structure(_not_empty, x), training=False)
            outputs = tf.nest.map_structure(lambda t: t[:rows], outputs)
            loss = model.compute_loss(x, y, outputs, None, training=False) * self.replicas
            model._loss_tracker.update_state(loss, sample_weight=rows)
            model.compute_metrics(x, y, outputs)

        return tf.function(
            lambda batch: self.strategy.run(replica, args=(batch,)), reduce_retracing=True, autograph=False
        )


def _not_empty(values: Any) -> Any:
    """Return rows (n, ...), or one of zeros if there are none."""
    lacking = tf.cast(tf.equal(tf.shape(values)[0], 0), tf.int32)
    return tf.concat([values, tf.zeros([lacking, *values.shape[1:]], values.dtype)], 0)


def _all_reduce(values: Any) -> Any:
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)


def _figures(model: Any) -> dict[str, float]:
    """Return what the metrics of a model hold, of all replicas together."""
    return {name: float(np.asarray(value)) for name, value in model.get_metrics_result().items()}


def add_up_first(optimizer: Any) -> None:
    """Let an optimizer add gradients up over all replicas before anything else happens to them.

    Keras adds them up last: it clips, accumulates and looks for infinities of a replica's own.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    add_up, apply = inner._all_reduce_sum_gradients, optimizer.apply_gradients
    optimizer.apply_gradients = lambda pairs: apply(add_up(pairs))
    inner._all_reduce_sum_gradients = list
    if inner.gradient_accumulation_steps:
        _accumulate_together(inner)


def _accumulate_together(optimizer: Any) -> None:
    """Let an optimizer choose for all replicas at once between adding gradients to its sums and updating weights.

    Keras chooses inside of a replica, where no other can be waited for.
    """
    every = optimizer.gradient_accumulation_steps

    def update(gradients: Any, variables: Any) -> None:
        sums = [optimizer._accumulated_gradients[optimizer._get_variable_index(v)] for v in variables]
        means = [(gradient + sum_) / every for gradient, sum_ in zip(gradients, sums, strict=True)]
        means = optimizer._clip_gradients(means)
        optimizer._apply_weight_decay(variables)
        optimizer._backend_update_step(means, variables, optimizer.learning_rate)
        optimizer._backend_reset_gradient_accumulators()

    def add(gradients: Any, variables: Any) -> None:
        sums = [optimizer._accumulated_gradients[optimizer._get_variable_index(v)] for v in variables]
        optimizer._backend_increment_gradient_accumulators(gradients, sums)

    def choose(strategy: Any, gradients: Any, variables: Any) -> None:
        each = strategy.extended.call_for_each_replica
        last = tf.equal((tf.convert_to_tensor(optimizer._iterations) + 1) % every, 0)

        def chosen(way: Callable[[Any, Any], None]) -> bool:
            each(way, args=(gradients, variables))
            return True

        tf.cond(last, lambda: chosen(update), lambda: chosen(add))

    def apply(gradients: Any, variables: Any) -> None:
        tf.distribute.get_replica_context().merge_call(choose, args=(gradients, variables))

    optimizer._backend_apply_gradients = apply


def draw_apart(model: Any) -> None:
    """Let each replica draw masks of dropout of its own; the first one draws those of a single device."""
    for generator in seed_generators(model):
        generator.next = _apart(generator.next)


def _apart(plain: Callable[..., Any]) -> Callable[..., Any]:
    def drawn(ordered: bool = True) -> Any:
        seed, context = plain(ordered=ordered), tf.distribute.get_replica_context()
        if context is None:
            return seed
        return seed + tf.stack([tf.cast(context.replica_id_in_sync_group, seed.dtype), tf.zeros([], seed.dtype)])

    return drawn


def seed_generators(model: Any) -> list[Any]:
    """Return the random generators of a model's layers."""
    kind = keras.random.SeedGenerator
    found = {id(v): v for layer in model._flatten_layers() for v in vars(layer).values() if isinstance(v, kind)}
    return list(found.values())


def normalize_together(model: Any) -> None:
    """Let Keras' own batch normalizations, where a model has some beside ours, normalize over all replicas."""
    from zoo.layers.core import BatchNormalization
    from zoo.layers.synchronized import shared_batch, shared_moments

    def together(layer: Any, plain: Callable[..., Any]) -> Callable[..., Any]:
        def moments(inputs: Any, mask: Any) -> Any:
            alone = mask is not None or not shared_batch()
            return plain(inputs, mask) if alone else shared_moments(layer, inputs)

        return moments

    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization) and not isinstance(layer, BatchNormalization):
            layer._moments = together(layer, layer._moments)
