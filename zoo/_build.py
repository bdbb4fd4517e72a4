"""From a name and options to a network: checks first, then the family's builder under one dtype policy."""

from __future__ import annotations

import contextlib
import inspect
import os
import typing
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo._blocks import Head, check_activation
from zoo._errors import BadOption, did_you_mean
from zoo._lazy import keras
from zoo._registry import Model, ModelSpec, models
from zoo._types import fit_type

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16", "bfloat16", "float16", "float64")


def build(name: str, asked: dict[str, Any], options: dict[str, Any], *, dtype: str | None, weights: str | None) -> Any:
    """Build the model `name`; see `zoo.get`, whose arguments these are."""
    model = models[name]
    shape = _input_shape(model.spec, asked["input_shape"])
    head = _head(model.spec, asked)
    arguments = model.arguments | _checked(model, options)
    with dtype_policy(dtype):
        inputs = keras.Input(shape, name=input_name(shape), dtype="float32")
        network = keras.Model(inputs, model.build(inputs, head, **arguments), name=name)
    if weights is not None:
        _load(network, weights)
    return network


def input_name(shape: tuple[int, ...]) -> str:
    """Return the name of the input: "image" for (height, width, channels), "features" otherwise."""
    return "image" if len(shape) == 3 else "features"


@contextlib.contextmanager
def dtype_policy(name: str | None) -> Iterator[None]:
    """Set Keras' global dtype policy and restore it; None leaves it alone."""
    if name is None:
        yield
        return
    if name not in POLICIES:
        raise BadOption(f"dtype must be one of {', '.join(POLICIES)}. Received: dtype={name!r}")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def options_of(model: Model) -> dict[str, inspect.Parameter]:
    """Return the options that a user may give: the builder's keyword-only parameters."""
    parameters = inspect.signature(model.build).parameters.values()
    hidden = {name for name, value in model.arguments.items() if callable(value)}
    return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in hidden}


def check_options(name: str, options: dict[str, Any]) -> None:
    """Raise UnknownName or BadOption if `zoo.get(name, **options)` would, as far as can be told without Keras."""
    _checked(models[name], options)


def _checked(model: Model, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options as the builder's types, or raise BadOption."""
    known = options_of(model)
    types = typing.get_type_hints(model.build)
    for name in options:
        if name not in known:
            raise BadOption(
                f"{model.spec.name} has no such option. Received: {name}={options[name]!r}. {did_you_mean(name, known)}"
            )
    return {name: fit_type(value, types[name], name) for name, value in options.items()}


def _input_shape(spec: ModelSpec, shape: Any) -> tuple[int, ...]:
    """Return the input's shape, checked against what the network can take."""
    shape = fit_type(spec.input_shape if shape is None else shape, tuple[int, ...], "input_shape")
    image = len(spec.input_shape) == 3
    if not shape or min(shape) < 1 or (image and len(shape) != 3):
        wanted = "(height, width, channels)" if image else "one or more sizes"
        raise BadOption(f"{spec.name} needs input_shape to be {wanted} of at least 1. Received: input_shape={shape}")
    if image and min(shape[:2]) < spec.min_size:
        raise BadOption(
            f"{spec.name} needs images of at least {spec.min_size}x{spec.min_size} pixels. "
            f"Received: input_shape={shape}. Use larger images or a network for small ones (zoo list --tag small)."
        )
    return shape


def _head(spec: ModelSpec, asked: dict[str, Any]) -> Head:
    """Return the head that was asked for."""
    classes = spec.classes if asked["classes"] is None else fit_type(asked["classes"], int, "classes")
    if classes < 0:
        raise BadOption(f"classes must be at least 1, or 0 for pooled features. Received: classes={classes}")
    include_top = fit_type(asked["include_top"], bool, "include_top")
    return Head(classes, include_top, _activation(asked["classifier_activation"], classes))


def _activation(name: str | None, classes: int) -> str | None:
    """Return the name of a Keras activation, or raise BadOption."""
    if name is None:
        return None
    check_activation("classifier_activation", name)
    if not classes:
        raise BadOption(f"classes=0 leaves no logits to activate. Received: classifier_activation={name!r}")
    return name


def _load(network: Any, weights: str) -> None:
    """Load the weights of a file written by Keras for the same network."""
    path = Path(weights) if isinstance(weights, (str, os.PathLike)) else None
    if path is None or path.suffix not in (".keras", ".h5") or not path.is_file():
        raise BadOption(
            f"weights must be the path of an existing .keras or .weights.h5 file. Received: weights={weights!r}"
        )
    try:
        with warnings.catch_warnings():
            # Keras warns of each layer that differs before it raises.
            warnings.simplefilter("ignore", UserWarning)
            network.load_weights(path)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:300]
        raise BadOption(f"weights must fit {network.name}. Received: weights={str(path)!r}: {reason}") from error
