"""Training under KERAS_BACKEND=jax: one program over all devices; each computes its shard of a batch.

keras.distribution puts the weights on every device and shards the batch; XLA sees the whole batch, so that a mean, the
statistics of batch normalization and dropout masks equal those of one device. tf.data still reads the data.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from training.common.sharding import check_divisible
from training.distributed.cluster import find_cluster
from training.distributed.device import Device
from training.distributed.precision import AMPERE, VOLTA
from training.recipe.recipe import Recipe
from zoo.build import dtype_policy
from zoo.common.errors import BadOption
from zoo.common.files import write_atomic
from zoo.common.lazy import LazyModule, keras, np, tf
from zoo.common.processor import has_bfloat16
from zoo.reading.keras_models import fill_weights
from zoo.specs.tasks import TASKS

jax = LazyModule("jax", extra="jax")

# Largest number, and bytes, of the examples with reference logits that a run saves for the export.
REFERENCES, REFERENCE_BYTES = 48, 8 << 20
# Tasks with losses of Keras' own; other losses use TensorFlow.
KNOWN_TASKS = tuple(name for name, kind in TASKS.items() if kind.single)
ADVICE = "Leave it out, or train with KERAS_BACKEND=tensorflow."


@dataclasses.dataclass(frozen=True)
class JaxDevice(Device):
    """Devices of JAX; `strategy` is a keras.distribution.DataParallel."""

    backend: str = "jax"
    # The state is in no variable during a step.
    interruptible: bool = False
    repeatable: bool = False

    @property
    def replicas(self) -> int:
        """Number of devices that share a batch."""
        return self.strategy.num_model_replicas

    def check(self, pipeline: Any) -> None:
        """Raise BadOption for data that this device does not support."""
        task = pipeline.dataset.task
        if task not in KNOWN_TASKS:
            raise BadOption(
                f"Training on JAX supports the tasks {' and '.join(KNOWN_TASKS)}. Received: "
                f"data.name={pipeline.dataset.name}, of the task {task!r}. Train with KERAS_BACKEND=tensorflow."
            )

    def running(self) -> Any:
        """Return the context in which models are built, steps are compiled and batches sharded."""
        return self.strategy.scope()

    def evaluate(self, model: Any, pipeline: Any, split: str) -> dict[str, Any]:
        """Return the metrics of a compiled model on a split.

        The size of the last batch may not divide by the devices: each device computes all of it, and adds to the
        metrics of the whole batches.
        """
        batches, whole = pipeline.evaluate(split), pipeline.dataset.splits[split].count // pipeline.batch_size
        metrics = None
        if whole:
            metrics = model.evaluate(batches.take(whole), return_dict=True, verbose=0)
        if whole * pipeline.batch_size == pipeline.dataset.splits[split].count:
            return metrics
        before = [np.asarray(v) for v in model.metrics_variables] if whole else []
        with _unsharded():
            return model.evaluate(batches.skip(whole), return_dict=True, verbose=0, callbacks=[_start_metrics(before)])

    def save_reference_logits(self, run: Any, pipeline: Any, build: Any) -> None:
        """Save the float32 logits of some examples, to verify the rebuilt model on TensorFlow with.

        Args:
            run: the run with the saved model.
            pipeline: its data.
            build: returns the model with random weights.
        """
        with _unsharded(), dtype_policy("float32"):
            model = build()
        fill_weights(model, run.model_path)
        x = _examples(pipeline)
        logits = np.asarray(model.predict_on_batch(x), "float32")
        write_atomic(run.logits_path, lambda path: np.savez_compressed(path, inputs=x, logits=logits))


def open_jax_device(recipe: Recipe) -> JaxDevice:
    """Return the devices that train a recipe on JAX.

    Raises:
        BadOption: the machine, or training on JAX, does not support an option of the recipe.
    """
    check_supported(recipe)
    # TensorFlow only reads the data here, and would allocate all of a GPU's memory.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
    devices = jax.devices()
    count = _count(recipe, devices)
    check_divisible(recipe.data.batch_size, count)
    chosen = [f"{device.platform}:{device.id}" for device in devices[:count]]
    strategy = keras.distribution.DataParallel(devices=chosen, auto_shard_dataset=False)
    precision = recipe.precision if recipe.precision != "auto" else _precision(devices[0])
    return JaxDevice(strategy, "mirrored" if count > 1 else "one", precision, jit_compile=True)


def check_supported(recipe: Recipe) -> None:
    """Raise BadOption for options that only the TensorFlow backend supports."""
    optimizer, regularize, augment, cluster = recipe.optimizer, recipe.regularize, recipe.data.augment, find_cluster()
    reasons = {
        f"strategy={recipe.strategy}": recipe.strategy not in ("auto", "one", "mirrored"),
        f"optimizer.name={optimizer.name}": optimizer.name.lower() in ("lbfgs", "muon"),
        f"optimizer.ema={optimizer.ema}": bool(optimizer.ema),
        f"optimizer.layer_decay={optimizer.layer_decay}": optimizer.layer_decay not in (0, 1),
        "regularize.spectral_norm=True": regularize.spectral_norm,
        f"finetune.views={recipe.finetune.views}": bool(recipe.finetune.views),
        "teacher": recipe.teacher is not None,
        "data.augment.place=device": augment.place == "device",
        f"log.profile={list(recipe.log.profile)}": bool(recipe.log.profile),
        "jit=off": recipe.jit == "off",
        "a cluster of several processes, by TF_CONFIG or SLURM": cluster is not None and len(cluster.workers) > 1,
    }
    for reason, holds in reasons.items():
        if holds:
            raise BadOption(f"Training on JAX does not support this option. Received: {reason}. {ADVICE}")


def _count(recipe: Recipe, devices: list[Any]) -> int:
    """Return the number of devices that share a batch: all, the recipe's replicas, or one."""
    if recipe.strategy == "one" and recipe.replicas > 1:
        raise BadOption(f"strategy=one has one replica. Received: replicas={recipe.replicas}. Use strategy=mirrored.")
    if recipe.replicas > len(devices):
        more = f" Set XLA_FLAGS=--xla_force_host_platform_device_count={recipe.replicas} to split a CPU."
        raise BadOption(
            f"replicas must be at most the {len(devices)} devices that JAX has here. Received: "
            f"replicas={recipe.replicas}.{more if devices[0].platform == 'cpu' else ' Lower it.'}"
        )
    return 1 if recipe.strategy == "one" else recipe.replicas or len(devices)


def _precision(device: Any) -> str:
    """Return the fastest dtype policy of a device that trains as float32 does."""
    if device.platform == "gpu":
        capability = tuple(map(int, str(device.compute_capability).split(".")))
        return "mixed_bfloat16" if capability >= AMPERE else "mixed_float16" if capability >= VOLTA else "float32"
    return "mixed_bfloat16" if device.platform == "tpu" or has_bfloat16() else "float32"


@contextlib.contextmanager
def _unsharded() -> Iterator[None]:
    """Turn off the sharding of batches inside."""
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def _start_metrics(values: list[Any]) -> Any:
    """Return a callback that starts an evaluation from the running metrics of another."""

    class StartMetrics(keras.callbacks.Callback):
        def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
            if batch == 0 and values:
                for variable, value in zip(self.model.metrics_variables, values, strict=True):
                    variable.assign(value)

    return StartMetrics()


def _examples(pipeline: Any) -> Any:
    """Return some preprocessed examples of the test split."""
    split = "test" if "test" in pipeline.dataset.splits else "validation"
    x = np.concatenate([np.asarray(x) for x, _ in pipeline.evaluate(split).take(REFERENCES)])[:REFERENCES]
    return x[: max(1, REFERENCE_BYTES // x[0].nbytes)]
