"""From a name and options to a network: checks first, then the family's builder under one dtype policy."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any

from zoo.common.errors import BadOption, did_you_mean
from zoo.common.lazy import keras
from zoo.common.types import fit_type
from zoo.layers.heads import Head, tasks_of
from zoo.layers.lazy import layers
from zoo.specs.registry import Model, ModelSpec, models
from zoo.weights.loading import load_state
from zoo.weights.sources import open_weights

# What input_shape means, by the names of the inputs.
SHAPES = {
    ("image",): "(height, width, channels)",
    ("features",): "one or more sizes",
    ("ids",): "(length,)",
    ("source", "target"): "(source length, target length)",
}
# What `zoo.features` returns: in words, and which networks have it.
KINDS = {"maps": ("feature maps", "for images"), "attention": ("attention", "with attention")}
POLICIES = ("float32", "mixed_bfloat16", "mixed_float16", "bfloat16", "float16", "float64")


@dataclasses.dataclass(frozen=True)
class Request:
    """What a user asks of a model beside the family's own options; see `zoo.get`, whose arguments these are."""

    classes: int | None = None
    heads: Any = None
    input_shape: tuple[int, ...] | None = None
    include_top: bool = True
    classifier_activation: str | None = None
    dtype: str | None = None


def build(name: str, request: Request, weights: Any, options: dict[str, Any]) -> Any:
    """Build the model `name` and load its weights; see `zoo.get`."""
    return _network(models[name], request, weights, options)[0]


def build_features(
    name: str, levels: Any, request: Request, weights: Any, options: dict[str, Any], kind: str = "maps"
) -> Any:
    """Build the model that returns the feature maps or the weights of attention; see `zoo.features`."""
    if kind not in KINDS:
        raise BadOption(f"kind must be one of {', '.join(KINDS)}. Received: kind={kind!r}")
    network, head = _network(models[name], dataclasses.replace(request, include_top=False), weights, options)
    found, (what, which) = head.attention if kind == "attention" else head.levels, KINDS[kind]
    if not found:
        raise BadOption(f"{name} has no {what}. Received: name={name!r}. Choose a network {which}.")
    return keras.Model(network.input, [found[i] for i in _levels(levels, len(found))], name=f"{name}_features")


def _levels(levels: Any, count: int) -> list[int]:
    """Return the numbers of feature maps, or raise BadOption."""
    chosen = fit_type(tuple(range(count)) if levels is None else levels, tuple[int, ...], "levels")
    if not chosen or not all(-count <= i < count for i in chosen):
        raise BadOption(f"levels must be from 0 to {count - 1}, or negative from the end. Received: levels={levels}")
    return list(chosen)


def _network(model: Model, request: Request, weights: Any, options: dict[str, Any]) -> tuple[Any, Head]:
    """Return the network with its weights, and its head, which has kept the feature maps."""
    arguments = checked_options(model, options)
    if weights is None:
        return _construct(model, request, arguments)
    with layers.weights_follow():
        source = open_weights(model, weights, lambda: _candidates(model, request, arguments))
        arguments = {**source.layout.arguments, **arguments}
        network, head = _construct(model, request, arguments, source.front)
        default = Request(input_shape=network.input_shape[1:])
        load_state(network, source, lambda: construct(model, default, arguments)[0])
    return network, head


def _candidates(model: Model, request: Request, arguments: dict[str, Any]) -> Iterator[Any]:
    """Yield networks that a file of weights may fit: as asked for, with the default head or none, other channels."""
    shape = _input_shape(model.spec, request.input_shape)
    default = (*shape[:-1], model.spec.input_shape[-1])
    if model.spec.task == "generate":
        yield construct(model, request, arguments)[0]
        return
    heads = [request, dataclasses.replace(request, classes=None, heads=None, include_top=True)]
    heads.append(dataclasses.replace(heads[1], classes=0, classifier_activation=None))
    for input_shape in dict.fromkeys([shape, default] if len(shape) == 3 else [shape]):
        for asked in heads:
            yield construct(model, dataclasses.replace(asked, input_shape=input_shape), arguments)[0]


def construct(model: Model, request: Request, options: dict[str, Any]) -> tuple[Any, list[Any]]:
    """Return the network with random weights, and its feature maps; see `_construct`."""
    network, head = _construct(model, request, options)
    return network, head.levels


def _construct(
    model: Model, request: Request, options: dict[str, Any], front: Callable[[Any], Any] | None = None
) -> tuple[Any, Head]:
    """Return the network with random weights, and its head, which has kept the feature maps.

    Args:
        model: the registered model.
        request: what was asked for.
        options: those of the family, checked.
        front: layers between the input and the network, if its weights want any.
    """
    shape = _input_shape(model.spec, request.input_shape)
    head = _head(model.spec, request)
    with dtype_policy(request.dtype):
        inputs = make_inputs(model.spec, shape)
        x = inputs if front is None else front(inputs)
        outputs = model.build(x, head, **_arguments(model.build, {**default_options(model), **options}))
        return keras.Model(inputs, outputs, name=model.spec.name), head


def make_inputs(spec: ModelSpec, shape: tuple[int, ...]) -> Any:
    """Return the input of a network as a Keras tensor; a dictionary of them by name where there are several."""
    if len(spec.inputs) == 1:
        return keras.Input(shape, name=spec.inputs[0], dtype=spec.input_dtype)
    lengths = zip(spec.inputs, shape, strict=True)
    return {name: keras.Input((length,), name=name, dtype=spec.input_dtype) for name, length in lengths}


def default_options(model: Model) -> dict[str, Any]:
    """Return the options that make the variant."""
    known = {"vocabulary": model.spec.vocabulary} if model.spec.vocabulary else {}
    return known | model.arguments


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
    """Return the options that a user may give, each with its default and type.

    They are the builder's keyword-only parameters; one that is a dataclass is a group and stands for its fields.
    """
    found = {}
    for parameter in _parameters(model.build):
        fields = _fields(parameter)
        for option in fields or [parameter]:
            if not callable(model.arguments.get(option.name)):
                found[option.name] = option
    return found


def _parameters(build: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the keyword-only parameters of a builder with their types resolved."""
    types = typing.get_type_hints(build)
    parameters = inspect.signature(build).parameters.values()
    return [p.replace(annotation=types.get(p.name, Any)) for p in parameters if p.kind is p.KEYWORD_ONLY]


def _fields(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    """Return the fields of a group of options as parameters; none if it is a single option."""
    if not dataclasses.is_dataclass(parameter.annotation):
        return []
    types, kind = typing.get_type_hints(parameter.annotation), inspect.Parameter.KEYWORD_ONLY
    fields = dataclasses.fields(parameter.annotation)
    return [inspect.Parameter(f.name, kind, default=f.default, annotation=types[f.name]) for f in fields]


def _arguments(build: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return the options as the builder takes them, those of a group put together."""
    rest, groups = dict(options), {}
    for parameter in _parameters(build):
        names = [field.name for field in _fields(parameter)]
        if names:
            groups[parameter.name] = parameter.annotation(**{name: rest.pop(name) for name in names if name in rest})
    return rest | groups


def check_options(name: str, options: dict[str, Any]) -> None:
    """Raise UnknownName or BadOption if `zoo.get(name, **options)` would, as far as can be told without Keras."""
    checked_options(models[name], options)


def checked_options(model: Model, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options as the builder's types, or raise BadOption."""
    known = options_of(model)
    for name in options:
        if name not in known:
            raise BadOption(
                f"{model.spec.name} has no such option. Received: {name}={options[name]!r}. {did_you_mean(name, known)}"
            )
    return {name: fit_type(value, known[name].annotation, name) for name, value in options.items()}


def _input_shape(spec: ModelSpec, shape: Any) -> tuple[int, ...]:
    """Return the input's shape, checked against what the network can take."""
    shape = fit_type(spec.input_shape if shape is None else shape, tuple[int, ...], "input_shape")
    image = spec.inputs == ("image",)
    if not shape or min(shape) < 1 or (len(shape) != len(spec.input_shape) and spec.inputs != ("features",)):
        raise BadOption(
            f"{spec.name} needs input_shape to be {SHAPES[spec.inputs]} of at least 1. Received: input_shape={shape}"
        )
    if image and min(shape[:2]) < spec.min_size:
        raise BadOption(
            f"{spec.name} needs images of at least {spec.min_size}x{spec.min_size} pixels. "
            f"Received: input_shape={shape}. Use larger images or a network for small ones (zoo list --tag small)."
        )
    return shape


def _head(spec: ModelSpec, request: Request) -> Head:
    """Return the head that was asked for."""
    if request.classes is not None and request.heads is not None:
        raise BadOption(
            f"classes and heads exclude each other. Received: classes={request.classes}, heads={request.heads}"
        )
    classes = spec.classes if request.classes is None else fit_type(request.classes, int, "classes")
    if classes < 0:
        raise BadOption(f"classes must be at least 1, or 0 for pooled features. Received: classes={classes}")
    include_top = fit_type(request.include_top, bool, "include_top")
    if spec.task == "generate":
        return _generating_head(spec, request, include_top and bool(classes))
    return Head(tasks_of(classes, request.heads, request.classifier_activation), include_top)


def _generating_head(spec: ModelSpec, request: Request, include_top: bool) -> Head:
    """Return the head of a network whose classes are its vocabulary."""
    if request.classes or request.heads is not None:
        raise BadOption(
            f"{spec.name} predicts the tokens of its vocabulary: set vocabulary= instead. "
            f"Received: classes={request.classes}, heads={request.heads}"
        )
    return Head(tasks_of(spec.classes, None, request.classifier_activation), include_top)
