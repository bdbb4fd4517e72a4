"""Where training computes: tf.distribute strategies, by name, and what none of them can do."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
from pathlib import Path
from typing import Any

from training.common.sharding import Shard, check_divisible
from training.distributed.cluster import Cluster, find_cluster
from training.distributed.device import Device
from training.distributed.precision import choose_precision
from training.distributed.workers import MultiWorker, together
from training.recipe.recipe import Recipe
from zoo.common.errors import BadOption
from zoo.common.lazy import keras, tf

# What says that this machine has a TPU, or where there is one; asking the cloud would take minutes where there is none.
TPU_VARIABLES = (
    "TPU_NAME",
    "TPU_WORKER_ID",
    "TPU_ACCELERATOR_TYPE",
    "COLAB_TPU_ADDR",
    "KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS",
)
TPU_FILES = ("/dev/accel0", "/dev/vfio/0")
# How far apart groups of devices are numbered, and how many there are.
APART, _made = 100_000, itertools.count()


def open_tensorflow_device(recipe: Recipe, *, alone: bool = False) -> Device:
    """Set up devices and strategy under TensorFlow; see `training.distributed.devices.open_device`."""
    cluster = None if alone else _cluster(recipe)
    gpus = _own_gpus(cluster)
    name = recipe.strategy
    if name == "auto" or (alone and name == "multiworker"):
        name = _best(cluster, gpus)
    return STRATEGIES[name](recipe, gpus, cluster)


def check_together(recipe: Recipe, path: Any) -> None:
    """Raise BadOption where several workers are to train in a new run that they do not all know the directory of."""
    if keras.backend.backend() == "tensorflow" and path is None and _together(_cluster(recipe)):
        raise BadOption(
            "All workers need to know the run directory, on a disk that they share. Received: strategy="
            f"{recipe.strategy} in a cluster, no run directory. Give each the same --run DIR."
        )


def _cluster(recipe: Recipe) -> Cluster | None:
    """Return the cluster that a recipe is trained by, if any."""
    return find_cluster() if recipe.strategy in ("auto", "multiworker") else None


def _together(cluster: Cluster | None) -> bool:
    return cluster is not None and len(cluster.workers) > 1


def _best(cluster: Cluster | None, gpus: list[Any]) -> str:
    """Return the strategy that uses all there is."""
    if _together(cluster):
        return "multiworker"
    return "tpu" if _has_tpu() else "mirrored" if len(gpus) > 1 else "one"


def _one(recipe: Recipe, gpus: list[Any], _: Cluster | None) -> Device:
    """Return one device: TensorFlow's own choice."""
    if recipe.replicas > 1:
        raise BadOption(f"strategy=one has one replica. Received: replicas={recipe.replicas}. Use strategy=mirrored.")
    precision = choose_precision(recipe.precision, gpus)
    # XLA on CPU is slower than oneDNN.
    jit = {"auto": bool(gpus), "on": True, "off": False}[recipe.jit]
    return Device(tf.distribute.get_strategy(), "one", precision, jit_compile=jit)


def _mirrored(recipe: Recipe, gpus: list[Any], _: Cluster | None) -> Device:
    """Return the devices of this process."""
    from training.distributed.replicated import Replicated

    count = recipe.replicas or len(gpus) or 1
    precision = choose_precision(recipe.precision, gpus)
    _check_several(recipe, count, precision)
    strategy = _mirrored_over(tuple(_devices(recipe.replicas, gpus)))
    return Replicated(strategy, "mirrored", precision, jit_compile=False, share=Shard(replicas=count))


def _multiworker(recipe: Recipe, gpus: list[Any], cluster: Cluster | None) -> Device:
    """Return the devices of all processes of a cluster, each of which has as many as this one."""
    if cluster is None:
        raise BadOption(
            "strategy=multiworker needs a cluster, by TF_CONFIG or SLURM. Received: neither. "
            "For local processes: zoo launch --workers N RECIPE"
        )
    if len(cluster.workers) == 1:
        return dataclasses.replace(_mirrored(recipe, gpus, None), name="multiworker")
    here = len(gpus) or 1
    count = here * len(cluster.workers)
    precision = choose_precision(recipe.precision, gpus)
    if recipe.replicas not in (0, count):
        raise BadOption(
            f"All devices of all workers share a batch, {count} here. Received: replicas={recipe.replicas}. "
            "Leave it at 0."
        )
    if recipe.regularize.spectral_norm:
        raise BadOption(
            "The vectors of spectral normalization are kept by one process. Received: regularize.spectral_norm=True, "
            f"{len(cluster.workers)} workers. Use strategy=mirrored."
        )
    _check_several(recipe, count, precision)
    strategy = _over_workers(cluster, len(gpus))
    share = Shard(len(cluster.workers), cluster.worker, here)
    return MultiWorker(strategy, "multiworker", precision, jit_compile=False, share=share)


# Operations that devices take together are known by number: a second strategy, which counts from 1 again, would find
# those of the first one. So the same devices have one strategy, and others count from elsewhere.
@functools.cache
def _mirrored_over(devices: tuple[str, ...]) -> Any:
    kind = tf.distribute.MirroredStrategy
    return type(kind.__name__, (kind,), {"_collective_key_base": APART * next(_made)})(list(devices))


@functools.cache
def _over_workers(cluster: Cluster, gpus: int) -> Any:
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.workers)}),
        task_type="worker",
        task_id=cluster.worker,
        rpc_layer="grpc",
        num_accelerators={"GPU": gpus},
    )
    kind = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(implementation=kind.AUTO if gpus else kind.RING)
    with together(cluster.worker, len(cluster.workers)):
        return tf.distribute.MultiWorkerMirroredStrategy(resolver, options)


def _tpu(recipe: Recipe, gpus: list[Any], _: Cluster | None) -> Device:
    """Return the cores of a TPU."""
    from training.distributed.replicated import Replicated

    if not _has_tpu():
        raise BadOption(
            "strategy=tpu needs a TPU. Received: a machine without one, and no TPU_NAME. Use strategy=auto."
        )
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(os.environ.get("TPU_NAME", "local"))
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        strategy = tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadOption(f"The TPU cannot be reached. Received: strategy=tpu: {reason}. Use strategy=one.") from error
    count = strategy.num_replicas_in_sync
    precision = choose_precision(recipe.precision, gpus, tpu=True)
    _check_several(recipe, count, precision)
    return Replicated(strategy, "tpu", precision, jit_compile=False, share=Shard(replicas=count))


STRATEGIES = {"one": _one, "mirrored": _mirrored, "multiworker": _multiworker, "tpu": _tpu}


def _check_several(recipe: Recipe, count: int, precision: str) -> None:
    """Raise BadOption for what several devices cannot do together."""
    check_divisible(recipe.data.batch_size, count)
    if recipe.jit != "on":
        return
    if precision == "mixed_float16":
        raise BadOption(
            "Loss scaling of float16 crashes where XLA compiles the step of several devices (keras#18666). Received: "
            f"strategy={recipe.strategy}, precision={precision}, jit=on. Leave jit at auto, or use mixed_bfloat16."
        )
    raise BadOption(
        f"XLA compiles the step of one device only. Received: strategy={recipe.strategy}, jit=on. Leave jit at auto."
    )


def _own_gpus(cluster: Cluster | None) -> list[Any]:
    """Return the GPUs of this process: where several workers of a machine see all of them, each takes its part."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus or cluster is None or cluster.beside == 1 or len(gpus) % cluster.beside:
        return gpus
    each = len(gpus) // cluster.beside
    mine = gpus[cluster.local * each : (cluster.local + 1) * each]
    # The context is set up already: then they are as they are.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices(mine, "GPU")
    return mine


def _devices(replicas: int, gpus: list[Any]) -> list[str]:
    """Return the devices of a mirrored strategy; without GPUs the CPU is split into logical ones."""
    if gpus:
        if replicas > len(gpus):
            raise BadOption(f"replicas must be at most the {len(gpus)} GPUs here. Received: replicas={replicas}")
        return [f"GPU:{i}" for i in range(replicas or len(gpus))]
    cpu = tf.config.list_physical_devices("CPU")[0]
    count = replicas or 1
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:
        # The context is set up already: what matters is whether it has the devices.
        have = len(tf.config.list_logical_devices("CPU"))
        if have < count:
            raise BadOption(
                f"TensorFlow was started in this process with {have} logical CPUs. Received: replicas={count}. "
                "Train in a new process."
            ) from None
    return [f"CPU:{i}" for i in range(count)]


def _has_tpu() -> bool:
    """Tell whether something says that there is a TPU."""
    return any(os.environ.get(name) for name in TPU_VARIABLES) or any(Path(place).exists() for place in TPU_FILES)
