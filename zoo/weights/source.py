"""Opened weights: arrays under the names of the library that wrote them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from zoo.specs.info import ModelInfo
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
    "embedding": "weight",
}


class HeadWarning(UserWarning):
    """The last layer of a model with pretrained weights starts at random."""


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
        grids: rows and columns of patches of each position embedding, by layer; square grids by default.
        info: what the source states about its model; None if it states nothing.
        model: the keras.Model that the arrays come from, if it states nothing itself.
        left_out: layers of another head, which are not loaded.
        classes: number of logits that a repository states; None if none is stated.
        input_shape: shape of one input that a repository states; None if none is stated.
    """

    received: str
    arrays: Mapping[str, Any]
    name_mapping: NameMapping = OWN_NAMES
    library: str = "zoo"
    published: bool = False
    bgr: bool = False
    grids: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    info: ModelInfo | None = None
    model: Any = None
    left_out: tuple[str, ...] = ()
    classes: int | None = None
    input_shape: tuple[int, ...] | None = None

    @property
    def torch(self) -> bool:
        """Whether keys and shapes are those of PyTorch."""
        return self.library == "torch"

    @property
    def any_head(self) -> bool:
        """Whether a head of another size starts at random: the source is a model of another library, or published."""
        return self.published or self.library == "keras" or self.name_mapping.headless

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
