"""A zoo of Keras models: names, what is known of them, and the networks themselves.

import zoo
model = zoo.get("resnet50")             # a keras.Model with random weights
zoo.names("resnet*")                    # without importing TensorFlow
zoo.spec("resnet50").params
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from zoo._build import build
from zoo._errors import ZooError
from zoo._preprocessing import Preprocessing
from zoo._registry import ModelSpec, models, register

if TYPE_CHECKING:
    import keras

__all__ = ["ModelSpec", "Preprocessing", "ZooError", "families", "get", "names", "register", "spec"]


def get(
    name: str,
    *,
    classes: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    include_top: bool = True,
    weights: str | None = None,
    classifier_activation: str | None = None,
    dtype: str | None = None,
    **options: Any,
) -> keras.Model:
    """Build a model of the registry.

    Args:
        name: a name of `zoo.names()`.
        classes: number of logits; 0 for the pooled features; the spec's number by default.
        input_shape: shape of one input, (height, width, channels) or (features,); the spec's by default.
        include_top: False returns the feature map (n, h, w, c) instead of logits.
        weights: path of a `.keras` or `.weights.h5` file of the same network; None for random weights.
        classifier_activation: a Keras activation after the logits, such as "softmax"; None returns logits.
        dtype: Keras dtype policy of the layers, such as "mixed_bfloat16"; the global one by default. Logits are
            float32 whatever the policy.
        **options: options of the family, such as `dropout=0.2` or `activation="tanh"`; `zoo show NAME` lists them.

    Returns:
        A functional keras.Model from one input (n, *input_shape) of preprocessed values, named "image" or
        "features", to logits (n, classes).

    Raises:
        UnknownName: no such model.
        BadOption: an option that the model does not have, or a value it cannot take.
    """
    asked = {"classes": classes, "input_shape": input_shape, "include_top": include_top}
    asked["classifier_activation"] = classifier_activation
    return build(name, asked, options, dtype=dtype, weights=weights)


def spec(name: str) -> ModelSpec:
    """Return what is known of a model without building it; raises UnknownName."""
    return models[name].spec


def names(*patterns: str, exclude: str | Iterable[str] = (), family: str | None = None) -> list[str]:
    """Return the names of the models in natural order.

    Args:
        *patterns: shell wildcards, any of which must match; none for all names.
        exclude: a wildcard or several that must not match.
        family: only models of this family.
    """
    found = models.names(*patterns, exclude=exclude)
    return [name for name in found if family in (None, models[name].spec.family)]


def families() -> list[str]:
    """Return the names of the families."""
    return sorted({models[name].spec.family for name in models.names()})
