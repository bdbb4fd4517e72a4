"""Devices by the backend of Keras."""

from __future__ import annotations

from training.distributed.device import Device
from training.distributed.jax_device import open_jax_device
from training.distributed.strategy import open_tensorflow_device
from training.recipe.recipe import Recipe
from zoo.common.errors import BadOption
from zoo.common.lazy import keras


def open_device(recipe: Recipe, *, alone: bool = False) -> Device:
    """Set up devices and strategy; must come before anything touches the TensorFlow context, a seed included.

    Args:
        recipe: what is to be trained.
        alone: in this process only, whatever cluster it is in.

    Raises:
        BadOption: the machine cannot do what the recipe asks for.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        return open_jax_device(recipe)
    if backend != "tensorflow":
        raise BadOption(f"Training needs Keras on tensorflow or jax. Received: KERAS_BACKEND={backend}")
    return open_tensorflow_device(recipe, alone=alone)
