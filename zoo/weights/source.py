"""Opened weights: arrays under the names of the library that wrote them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from zoo.specs.published import NameMapping

# Files of the zoo name a layer as its model does.
OWN_NAMES = NameMapping(rules=((r"(.*)", "{0}"),), ignored=(r"auxiliary.*",))
# Keras variables and their names in PyTorch.
TORCH_VARIABLES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


@dataclasses.dataclass(frozen=True)
class WeightsSource:
    """Opened weights.

    Args:
        received: the user's argument, for messages: "weights='model.keras'".
        arrays: values by key: "layer/variable" in Keras, "module.parameter" in PyTorch.
        name_mapping: layer names of the source.
        library: library of the keys and shapes: "zoo", "keras" or "torch".
        published: the weights were found by name, so a head of another size starts at random.
        bgr: the first convolution expects BGR; loading reverses it to RGB.
        preprocess: layers between the input and the model that the weights expect, or None.
        grids: rows and columns of patches of each position embedding, by layer; square grids by default.
    """

    received: str
    arrays: Mapping[str, Any]
    name_mapping: NameMapping = OWN_NAMES
    library: str = "zoo"
    published: bool = False
    bgr: bool = False
    preprocess: Callable[[Any], Any] | None = None
    grids: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)

    @property
    def torch(self) -> bool:
        """Whether keys and shapes are those of PyTorch."""
        return self.library == "torch"

    def key(self, layer: str, variable: str) -> str | None:
        """Return the source's key of a variable of our layer, or None if no rule matches the layer."""
        name = self.name_mapping.rename(layer)
        if name is None or not self.torch:
            return name and f"{name}/{variable}"
        # A parameter without a module, such as a layer scale, is the key itself.
        return name if name in self.arrays else f"{name}.{TORCH_VARIABLES.get(variable, variable)}"

    def module(self, key: str) -> str:
        """Return the layer of a key."""
        return key.rpartition("." if self.torch else "/")[0]

    def ignores(self, key: str) -> bool:
        """Return whether our model has no variable for a key on purpose."""
        return self.name_mapping.ignores(key) or key.endswith("num_batches_tracked")

    def omits_scale(self, key: str) -> bool:
        """Return whether a key is the scale of a batch normalization that Keras built with scale=False."""
        module, _, variable = key.rpartition("/")
        return self.library == "keras" and variable == "gamma" and f"{module}/moving_mean" in self.arrays
