"""Train on several devices as on one: the result does not depend on the number of parts of a batch.

Keras' own `fit` does not train under MultiWorkerMirroredStrategy (Keras 3.15: its symbolic build converts a value of
several replicas, and it reduces scalar logs over an axis that they do not have). Under other strategies it clips
gradients before they are summed, draws one dropout mask for all replicas, and cannot accumulate. So this module takes
the steps.
"""

from __future__ import annotations

import dataclasses
import functools
import signal as signals
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from training.distributed.device import Device
from training.optim.step_hooks import sum_gradients_first
from zoo.common import compat
from zoo.common.lazy import keras, np, tf

# Requests that workers share with each step.
REQUESTS = ("SIGTERM", "SIGINT", "save")


@dataclasses.dataclass
class Exchange:
    """The requests that this worker sends with its next step, and the sums of the last step; see `REQUESTS`.

    Attributes:
        sent: this worker's requests.
        received: the sum of all workers' requests.
        evaluation_steps: compiled evaluation steps by model.
    """

    sent: Sequence[float] = (0.0,) * len(REQUESTS)
    received: Sequence[float] = (0.0,) * len(REQUESTS)
    evaluation_steps: dict[tuple[int, int], tuple[Any, Callable[[Any], None]]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Replicated(Device):
    """Several devices that share each batch, of this process or of several."""

    # A batch at hand is one replica's part.
    repeatable: bool = False
    exchange: Exchange = dataclasses.field(default_factory=Exchange)

    def adapt_optimizer(self, cls: Any) -> Any:
        """Return a subclass of an optimizer that sums gradients over replicas first."""
        return sum_gradients_first(cls)

    def prepare(self, model: Any) -> None:
        """Prepare a compiled and built TrainingModel for steps on all devices."""
        use_replica_seeds(model)
        use_global_batch_norm(model)
        model.hooks.make_step = self._make_step

    def fit(self, model: Any, pipeline: Any, epoch: int, skip: int, callbacks: Sequence[Any]) -> dict[str, float]:
        """Train one epoch (from 0) after its first `skip` steps; return its metrics."""
        model.make_train_function()
        events = keras.callbacks.CallbackList(list(callbacks), model=model)
        batches = self._distributed(pipeline.train(epoch, skip, self.shard))
        events.on_train_begin()
        model.reset_metrics()
        events.on_epoch_begin(epoch)
        for step in range(pipeline.steps_per_epoch - skip):
            events.on_train_batch_begin(step)
            events.on_train_batch_end(step, model.train_function(batches))
        metrics = _metrics(model)
        events.on_epoch_end(epoch, metrics)
        events.on_train_end(metrics)
        return metrics

    def evaluate(self, model: Any, pipeline: Any, split: str) -> dict[str, Any]:
        """Return the metrics of a compiled model on a split; one replica evaluates each example."""
        steps = self.exchange.evaluation_steps
        # A stage of fine-tuning may evaluate the head alone, on features.
        key = (id(model), id(getattr(getattr(model, "hooks", None), "head", None)))
        if key not in steps:
            steps[key] = (model, self._make_evaluation_step(model))
        model.reset_metrics()
        for batch in self._distributed(pipeline.evaluate(split, self.shard)):
            steps[key][1](batch)
        return _metrics(model)

    def synchronize(self, signal: int, save: bool, *, wait: bool = False) -> tuple[int, bool]:
        """Share this worker's requests with all workers; return what all of them do after this step."""
        if self.workers == 1:
            return signal, save
        # The clocks of workers differ: the chief's decides.
        terminate = signal not in (0, signals.SIGINT)
        sent = [float(terminate), float(signal == signals.SIGINT), float(save and self.chief)]
        if wait:
            received = self._sum(sent)
        else:
            received, self.exchange.sent = self.exchange.received, sent
        terminate, interrupt, save = (value > 0 for value in received)
        return (signals.SIGTERM if terminate else signals.SIGINT if interrupt else 0), save

    def barrier(self) -> None:
        """Wait until all workers reach this point."""
        if self.workers > 1:
            self._sum([0.0])

    def _sum(self, values: Sequence[float]) -> Any:
        """Return the sums of numbers over all replicas."""
        total = self.strategy.run(_all_reduce, args=(tf.constant(values, tf.float32),))
        return self.strategy.experimental_local_results(total)[0].numpy()

    def _distributed(self, batches: Any) -> Iterator[Any]:
        """Yield the parts of a batch that the replicas here compute together; parts come one after the other."""
        for parts in zip(*[iter(batches)] * self.shard.replicas, strict=False):
            yield self.strategy.experimental_distribute_values_from_function(
                lambda context, parts=parts: parts[context.replica_id_in_sync_group % self.shard.replicas]
            )

    def _make_step(self, model: Any) -> Callable[[Iterator[Any]], dict[str, Any]]:
        """Return a function that takes a step on an iterator's next batch and returns the running metrics."""
        names: list[str] = []

        def replica(batch: Any, requests: Any) -> Any:
            logs = model.train_step(batch)
            names[:] = logs
            # Metrics of replicas have equal weights, as their parts of a batch have equal sizes.
            values = [tf.cast(logs[name], tf.float32) / self.replicas for name in names]
            return _all_reduce(tf.concat([tf.stack(values), requests], 0))

        @tf.function(reduce_retracing=True, autograph=False)
        def step(batch: Any, requests: Any) -> Any:
            return self.strategy.run(replica, args=(batch, requests))

        def take(batches: Iterator[Any]) -> dict[str, Any]:
            sums = step(next(iter(batches)), tf.constant(self.exchange.sent, tf.float32))
            values = self.strategy.experimental_local_results(sums)[0].numpy()
            self.exchange.received = values[len(names) :]
            return dict(zip(names, values.tolist(), strict=False))

        return take

    def _make_evaluation_step(self, model: Any) -> Callable[[Any], None]:
        """Return a function that updates the metrics of a model with a batch, as Keras' test_step does.

        A replica without rows computes one row of zeros: TensorFlow's fused convolutions give an empty batch another
        shape.
        """
        loss_metric = next(metric for metric in model.metrics if metric.name == "loss")

        def replica(batch: Any) -> None:
            x, y = batch
            rows = tf.shape(y)[0]
            outputs = model(tf.nest.map_structure(_not_empty, x), training=False)
            outputs = tf.nest.map_structure(lambda t: t[:rows], outputs)
            loss = model.compute_loss(x, y, outputs, None, training=False) * self.replicas
            loss_metric.update_state(loss, sample_weight=rows)
            model.compute_metrics(x, y, outputs)

        return tf.function(
            lambda batch: self.strategy.run(replica, args=(batch,)), reduce_retracing=True, autograph=False
        )


def _not_empty(values: Any) -> Any:
    """Return rows (n, ...), or one row of zeros if there are none."""
    missing = tf.cast(tf.equal(tf.shape(values)[0], 0), tf.int32)
    return tf.concat([values, tf.zeros([missing, *values.shape[1:]], values.dtype)], 0)


def _all_reduce(values: Any) -> Any:
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)


def _metrics(model: Any) -> dict[str, float]:
    """Return the metrics of a model over all replicas."""
    return {name: float(np.asarray(value)) for name, value in model.get_metrics_result().items()}


def use_replica_seeds(model: Any) -> None:
    """Draw another dropout mask on each replica; the first replica draws that of a single device."""
    for generator in seed_generators(model):
        # Layers hold their generators, and saved models do not include them.
        generator.__class__ = _replica_seed_generator()


def seed_generators(model: Any) -> list[Any]:
    """Return the random generators of a model's layers."""
    kind = keras.random.SeedGenerator
    found = {id(v): v for layer in compat.flatten_layers(model) for v in vars(layer).values() if isinstance(v, kind)}
    return list(found.values())


@functools.cache
def _replica_seed_generator() -> Any:
    class ReplicaSeedGenerator(keras.random.SeedGenerator):
        """A generator whose seeds differ between replicas."""

        def next(self, ordered: bool = True) -> Any:
            """Return the next seed, plus the index of the replica."""
            seed, context = super().next(ordered=ordered), tf.distribute.get_replica_context()
            if context is None:
                return seed
            return seed + tf.stack([tf.cast(context.replica_id_in_sync_group, seed.dtype), tf.zeros([], seed.dtype)])

    return ReplicaSeedGenerator


def use_global_batch_norm(model: Any) -> None:
    """Let Keras' own batch normalization layers, which third-party models may have, normalize over all replicas."""
    from zoo.layers.core import BatchNormalization
    from zoo.layers.synchronized import shared_batch, shared_moments

    def over_replicas(layer: Any, plain: Callable[..., Any]) -> Callable[..., Any]:
        def moments(inputs: Any, mask: Any) -> Any:
            alone = mask is not None or not shared_batch()
            return plain(inputs, mask) if alone else shared_moments(layer, inputs)

        return moments

    for layer in compat.flatten_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization) and not isinstance(layer, BatchNormalization):
            compat.set_batch_moments(layer, over_replicas(layer, compat.batch_moments(layer)))
