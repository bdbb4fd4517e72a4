"""Where training computes and in which precision: tf.distribute strategies, dtype policies, XLA."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from training._recipe import Recipe
from zoo._errors import BadOption
from zoo._lazy import tf


@dataclasses.dataclass(frozen=True)
class Device:
    """What a run computes on.

    Args:
        strategy: the tf.distribute strategy.
        name: "one" or "mirrored".
        precision: a Keras dtype policy.
        jit_compile: whether XLA compiles the step.
    """

    strategy: Any
    name: str
    precision: str
    jit_compile: bool

    @property
    def replicas(self) -> int:
        """How many devices share a batch."""
        return self.strategy.num_replicas_in_sync


def open_device(recipe: Recipe) -> Device:
    """Set up devices and strategy; must come before anything touches the TensorFlow context, a seed included.

    Raises:
        BadOption: the machine cannot do what the recipe asks for.
    """
    gpus = tf.config.list_physical_devices("GPU")
    name = recipe.strategy if recipe.strategy != "auto" else ("mirrored" if len(gpus) > 1 else "one")
    precision = _precision(recipe.precision, gpus)
    if name == "one":
        if recipe.replicas > 1:
            raise BadOption(
                f"strategy=one has one replica. Received: replicas={recipe.replicas}. Use strategy=mirrored."
            )
        strategy = tf.distribute.get_strategy()
    else:
        check_divisible(recipe.data.batch_size, recipe.replicas or len(gpus) or 1)
        strategy = tf.distribute.MirroredStrategy(_devices(recipe.replicas, gpus))
    # XLA on CPU is slower than oneDNN; its loss scaling under a mirrored strategy crashes (keras#18666).
    return Device(strategy, name, precision, jit_compile=bool(gpus) and name == "one")


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


def check_divisible(batch_size: int, replicas: int) -> None:
    """Raise BadOption unless every replica gets the same share of a batch, at least one row."""
    if batch_size % replicas:
        raise BadOption(
            "A batch is divided evenly among the replicas. "
            f"Received: replicas={replicas}, a batch of {batch_size}. Change replicas or data.batch_size."
        )


def _precision(asked: str, gpus: list[Any]) -> str:
    """Return the dtype policy; "auto" takes the fastest that needs no care on this machine."""
    if asked != "auto":
        return asked
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16" if capability >= (7, 0) else "float32"
    return "mixed_bfloat16" if _cpu_has_bfloat16() else "float32"


def _cpu_has_bfloat16() -> bool:
    """Tell whether the processor multiplies bfloat16 in hardware; without, it is emulated and slow."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags
