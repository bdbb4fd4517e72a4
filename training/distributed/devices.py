"""Open the device of a recipe, by the Keras backend."""

from __future__ import annotations

from training.distributed.device import Device
from training.distributed.jax_device import open_jax_device
from training.distributed.strategy import open_tensorflow_device
from training.recipe.recipe import Recipe
from zoo.common.errors import BadOption
from zoo.common.lazy import keras


def open_device(recipe: Recipe, *, alone: bool = False) -> Device:
    """Set up devices and strategy; call it before anything initializes the TensorFlow context, such as a seed.

    Args:
        recipe: the recipe.
        alone: use this process only, also in a cluster.

    Raises:
        BadOption: the machine does not support an option of the recipe.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        return open_jax_device(recipe)
    if backend != "tensorflow":
        raise BadOption(
            f"KERAS_BACKEND must be tensorflow or jax to train. Received: KERAS_BACKEND={backend}. Set one of these."
        )
    return open_tensorflow_device(recipe, alone=alone)
