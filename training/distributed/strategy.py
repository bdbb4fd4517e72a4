"""Open tf.distribute strategies by name, and check what they do not support."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
from pathlib import Path
from typing import Any

from training.common.compat import COLLECTIVE_KEY_BASE
from training.common.sharding import Shard, check_divisible
from training.distributed.cluster import Cluster, find_cluster
from training.distributed.device import Device
from training.distributed.precision import choose_precision
from training.distributed.workers import MultiWorker, detect_lost_worker
from training.recipe.recipe import Recipe
from zoo.common.errors import BadOption
from zoo.common.lazy import keras, tf

# Signs of a TPU on this machine or its address; a query to the cloud takes minutes on a machine without one.
TPU_VARIABLES = (
    "TPU_NAME",
    "TPU_WORKER_ID",
    "TPU_ACCELERATOR_TYPE",
    "COLAB_TPU_ADDR",
    "KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS",
)
TPU_FILES = ("/dev/accel0", "/dev/vfio/0")
# Distance between the collective keys of two strategies, and the number of strategies so far.
KEY_DISTANCE, _count = 100_000, itertools.count()


def open_tensorflow_device(recipe: Recipe, *, alone: bool = False) -> Device:
    """Set up devices and strategy under TensorFlow; see `training.distributed.devices.open_device`."""
    cluster = None if alone else _find_cluster(recipe)
    gpus = _own_gpus(cluster)
    name = recipe.strategy
    if name == "auto" or (alone and name == "multiworker"):
        name = _best_strategy(cluster, gpus)
    return STRATEGIES[name](recipe, gpus, cluster)


def check_run_path(recipe: Recipe, path: Any) -> None:
    """Raise BadOption if several workers start a run without a common directory."""
    if keras.backend.backend() == "tensorflow" and path is None and _has_workers(_find_cluster(recipe)):
        raise BadOption(
            "All workers need the same run directory, on a disk that they share. Received: strategy="
            f"{recipe.strategy} in a cluster, no run directory. Pass the same --run DIR to each."
        )


def _find_cluster(recipe: Recipe) -> Cluster | None:
    """Return the cluster that trains a recipe, if any."""
    return find_cluster() if recipe.strategy in ("auto", "multiworker") else None


def _has_workers(cluster: Cluster | None) -> bool:
    return cluster is not None and len(cluster.workers) > 1


def _best_strategy(cluster: Cluster | None, gpus: list[Any]) -> str:
    """Return the strategy that uses all workers and devices."""
    if _has_workers(cluster):
        return "multiworker"
    return "tpu" if _has_tpu() else "mirrored" if len(gpus) > 1 else "one"


def _one(recipe: Recipe, gpus: list[Any], _: Cluster | None) -> Device:
    """Return one device, selected by TensorFlow."""
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
    _check_replicas(recipe, count, precision)
    strategy = _mirrored_over(tuple(_devices(recipe.replicas, gpus)))
    return Replicated(strategy, "mirrored", precision, jit_compile=False, shard=Shard(replicas=count))


def _multiworker(recipe: Recipe, gpus: list[Any], cluster: Cluster | None) -> Device:
    """Return the devices of all processes of a cluster; each process has as many as this one."""
    if cluster is None:
        raise BadOption(
            "strategy=multiworker needs a cluster, by TF_CONFIG or SLURM. Received: neither. "
            "For local processes, run: zoo launch --workers N RECIPE"
        )
    if len(cluster.workers) == 1:
        return dataclasses.replace(_mirrored(recipe, gpus, None), name="multiworker")
    here = len(gpus) or 1
    count = here * len(cluster.workers)
    precision = choose_precision(recipe.precision, gpus)
    if recipe.replicas not in (0, count):
        raise BadOption(
            f"replicas must be 0 or the {count} devices of all workers. Received: replicas={recipe.replicas}. "
            "Leave it at 0."
        )
    if recipe.regularize.spectral_norm:
        raise BadOption(
            "Spectral normalization trains in one process only. Received: regularize.spectral_norm=True, "
            f"{len(cluster.workers)} workers. Use strategy=mirrored."
        )
    _check_replicas(recipe, count, precision)
    strategy = _over_workers(cluster, len(gpus))
    shard = Shard(len(cluster.workers), cluster.worker, here)
    return MultiWorker(strategy, "multiworker", precision, jit_compile=False, shard=shard)


# Keys identify the collective operations of devices; those of a second strategy would start at 1 again and collide with
# the first one's. So the same devices have one strategy, and other strategies have other first keys.
@functools.cache
def _mirrored_over(devices: tuple[str, ...]) -> Any:
    kind = tf.distribute.MirroredStrategy
    return type(kind.__name__, (kind,), {COLLECTIVE_KEY_BASE: KEY_DISTANCE * next(_count)})(list(devices))


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
    with detect_lost_worker(cluster.worker, len(cluster.workers)):
        return tf.distribute.MultiWorkerMirroredStrategy(resolver, options)


def _tpu(recipe: Recipe, gpus: list[Any], _: Cluster | None) -> Device:
    """Return the cores of a TPU."""
    from training.distributed.replicated import Replicated

    if not _has_tpu():
        raise BadOption("strategy=tpu needs a TPU. Received: a machine without one and no TPU_NAME. Use strategy=auto.")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(os.environ.get("TPU_NAME", "local"))
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        strategy = tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadOption(f"Expected a TPU that responds. Received: strategy=tpu: {reason}. Use strategy=one.") from error
    count = strategy.num_replicas_in_sync
    precision = choose_precision(recipe.precision, gpus, tpu=True)
    _check_replicas(recipe, count, precision)
    return Replicated(strategy, "tpu", precision, jit_compile=False, shard=Shard(replicas=count))


STRATEGIES = {"one": _one, "mirrored": _mirrored, "multiworker": _multiworker, "tpu": _tpu}


def _check_replicas(recipe: Recipe, count: int, precision: str) -> None:
    """Raise BadOption for options that several devices do not support."""
    check_divisible(recipe.data.batch_size, count)
    if recipe.jit != "on":
        return
    if precision == "mixed_float16":
        raise BadOption(
            "jit=on crashes with float16 loss scaling on several devices (keras#18666). Received: "
            f"strategy={recipe.strategy}, precision={precision}, jit=on. Leave jit at auto, or use mixed_bfloat16."
        )
    raise BadOption(f"jit=on needs one device. Received: strategy={recipe.strategy}, jit=on. Leave jit at auto.")


def _own_gpus(cluster: Cluster | None) -> list[Any]:
    """Return the GPUs of this process: each of several workers on a machine uses its part of them."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus or cluster is None or cluster.local_workers == 1 or len(gpus) % cluster.local_workers:
        return gpus
    each = len(gpus) // cluster.local_workers
    mine = gpus[cluster.local * each : (cluster.local + 1) * each]
    # The context is initialized already and cannot change.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices(mine, "GPU")
    return mine


def _devices(replicas: int, gpus: list[Any]) -> list[str]:
    """Return the devices of a mirrored strategy; without GPUs, logical CPUs."""
    if gpus:
        if replicas > len(gpus):
            raise BadOption(
                f"replicas must be at most the {len(gpus)} GPUs here. Received: replicas={replicas}. Lower it."
            )
        return [f"GPU:{i}" for i in range(replicas or len(gpus))]
    cpu = tf.config.list_physical_devices("CPU")[0]
    count = replicas or 1
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:
        # The context is initialized already; it may have enough devices.
        have = len(tf.config.list_logical_devices("CPU"))
        if have < count:
            raise BadOption(
                f"replicas must be at most the {have} logical CPUs of this process. Received: replicas={count}. "
                "Train in a new process."
            ) from None
    return [f"CPU:{i}" for i in range(count)]


def _has_tpu() -> bool:
    """Return whether there are signs of a TPU."""
    return any(os.environ.get(name) for name in TPU_VARIABLES) or any(Path(place).exists() for place in TPU_FILES)
