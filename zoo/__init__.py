"""A zoo of Keras models: names, what is known of them, and the networks themselves.

import zoo
model = zoo.get("resnet50")             # a keras.Model with random weights
zoo.names("resnet*")                    # without importing TensorFlow
zoo.spec("resnet50").params
zoo.features("resnet50", levels=(1, 2, 3, 4))   # a keras.Model of feature maps
zoo.generate(zoo.get("transformer_base"), ids)  # token ids (n, 128) written from token ids (n, 128)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.build import Request, build_features
from zoo.build import build as _build
from zoo.common.errors import ZooError
from zoo.counts import counted
from zoo.decoding import generate as write_sequences
from zoo.layers.heads import MultiClass, MultiLabel, Regression
from zoo.specs.counts import provide
from zoo.specs.preprocessing import PreprocessingConfig
from zoo.specs.published import Weights
from zoo.specs.registry import ModelSpec, register
from zoo.specs.registry import models as _models
from zoo.weights.sources import write_weights

if TYPE_CHECKING:
    import keras
    import numpy as np

__all__ = [
    "ModelSpec",
    "MultiClass",
    "MultiLabel",
    "PreprocessingConfig",
    "Regression",
    "Weights",
    "ZooError",
    "families",
    "features",
    "generate",
    "get",
    "names",
    "register",
    "save_weights",
    "spec",
]


# The models of plug-ins have no record; they are counted by building them.
provide(counted)


def get(
    name: str,
    *,
    classes: int | None = None,
    heads: Any = None,
    input_shape: tuple[int, ...] | None = None,
    include_top: bool = True,
    weights: Any = None,
    classifier_activation: str | None = None,
    dtype: str | None = None,
    **options: Any,
) -> keras.Model:
    """Build a model of the registry.

    Args:
        name: a name of `zoo.names()`.
        classes: number of logits; 0 for the pooled features; the spec's number by default.
        heads: instead of classes, a `MultiClass`, `MultiLabel` or `Regression`, or several over one trunk by name, as
            in `{"species": 10, "age": Regression()}`; the network then returns a dictionary.
        input_shape: shape of one input, (height, width, channels) or (features,); the spec's by default.
        include_top: False returns the feature map (n, h, w, c) instead of logits.
        weights: where the weights come from; None for random ones. A path (`.keras`, `.weights.h5`, or `.safetensors`
            named as ours, timm's or torchvision's), a keras.Model of keras.applications or of this zoo, "imagenet"
            (the first of `zoo.spec(name).weights`), "keras" (keras.applications' own file) or "timm/<model>.<tag>"
            (the Hugging Face hub). Named weights leave a head of another size random; files must fit as a whole, but
            for heads that they do not have. For another number of channels than theirs the first convolution is summed
            (for one) or tiled and scaled.
        classifier_activation: a Keras activation after the logits, such as "softmax"; None returns logits.
        dtype: Keras dtype policy of the layers, such as "mixed_bfloat16"; the global one by default. Logits are
            float32 whatever the policy.
        **options: options of the family, such as `dropout=0.2` or `activation="silu"`; `zoo show NAME` lists them.

    Returns:
        A functional keras.Model from one input (n, *input_shape) of preprocessed values, named "image" or
        "features", to logits (n, classes).

    Raises:
        UnknownName: no such model.
        BadOption: an option that the model does not have, a value it cannot take, or weights that do not fit.
        DataError: the weights cannot be downloaded or read.
    """
    request = Request(classes, heads, input_shape, include_top, classifier_activation, dtype)
    return _build(name, request, weights, options)


def features(
    name: str,
    levels: Sequence[int] | None = None,
    *,
    input_shape: tuple[int, ...] | None = None,
    weights: Any = None,
    dtype: str | None = None,
    kind: str = "maps",
    **options: Any,
) -> keras.Model:
    """Build a model that returns the feature maps of a network, or how much its tokens look at one another.

    Args:
        name: a name of `zoo.names()`.
        levels: which maps, as numbers of `zoo.spec(name).feature_info`, or which attention, as its number in the order
            of the blocks; negative ones count from the end; all by default.
        input_shape: as for `zoo.get`.
        weights: as for `zoo.get`.
        dtype: as for `zoo.get`.
        kind: "maps" for feature maps, which networks for images have, or "attention" for the weights of attention.
        **options: options of the family.

    Returns:
        A functional keras.Model from inputs (n, *input_shape) to a list of maps (n, h, w, c), or of weights
        (n, heads, queries, keys) that sum to 1 over the keys; where there is one only, to this one.

    Raises:
        UnknownName: no such model.
        BadOption: a level or an option that the model does not have, or weights that do not fit.
    """
    return build_features(name, levels, Request(input_shape=input_shape, dtype=dtype), weights, options, kind)


def generate(model: keras.Model, source: np.ndarray, beams: int = 1, penalty: float = 0.6) -> np.ndarray:
    """Write a sequence for each source, token by token, by a network whose task is "generate".

    Args:
        model: a network of `zoo.get`, or one loaded from its `.keras` file.
        source: token ids (n, source length), padded with 0 at the end.
        beams: beginnings kept at each step (beam search); 1 takes the likeliest token each time.
        penalty: exponent of the length that log-probabilities are divided by (Wu et al. 2016, arXiv:1609.08144);
            0 prefers short sequences.

    Returns:
        Token ids (n, target length), int32: up to and with the one that ends the sequence, then 0.

    Raises:
        BadOption: the network writes no sequences, or ids or options that it cannot take.
    """
    return write_sequences(model, source, beams, penalty)


def save_weights(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Write the weights of a model as safetensors, keys "layer/variable"; `zoo.get(name, weights=path)` reads them.

    Args:
        model: a model of this zoo.
        path: a file ending in `.safetensors`, written whole or not at all.

    Raises:
        BadOption: another ending.
    """
    write_weights(model, Path(path))


def spec(name: str) -> ModelSpec:
    """Return what is known of a model without building it; raises UnknownName."""
    return _models[name].spec


def names(*patterns: str, exclude: str | Iterable[str] = (), family: str | None = None) -> list[str]:
    """Return the names of the models in natural order.

    Args:
        *patterns: shell wildcards, any of which must match; none for all names.
        exclude: a wildcard or several that must not match.
        family: only models of this family.
    """
    found = _models.names(*patterns, exclude=exclude)
    return [name for name in found if family in (None, _models[name].spec.family)]


def families() -> list[str]:
    """Return the names of the families."""
    return sorted({_models[name].spec.family for name in _models.names()})
