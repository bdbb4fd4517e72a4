"""Building a registered model: check the options, then call the family's builder under fixed Keras defaults."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from zoo.common.budgets import check_option, check_shape
from zoo.common.errors import BadOption, did_you_mean
from zoo.common.footprint import is_large, shapes_only, within_memory
from zoo.common.lazy import keras
from zoo.common.types import fit_type
from zoo.layers.heads import Head, tasks_of
from zoo.layers.lazy import layers, saving
from zoo.specs.info import ModelInfo
from zoo.specs.preprocessing import PreprocessingConfig, parse_preprocessing
from zoo.specs.registry import Model, ModelSpec, models
from zoo.specs.tasks import task_of
from zoo.weights.conventions import Variants, choose_options, note_assumption, with_preprocessing
from zoo.weights.keras_models import rescale
from zoo.weights.loading import load_weights
from zoo.weights.opening import open_weights
from zoo.weights.repositories import locate
from zoo.weights.source import WeightsSource

# Meaning of input_shape, by the names of the inputs.
SHAPES = {
    ("image",): "(height, width, channels)",
    ("features",): "one or more sizes",
    ("ids",): "(length,)",
    ("source", "target"): "(source length, target length)",
}
# Outputs of `zoo.features`: in words, and the models that have them.
KINDS = {"maps": ("feature maps", "for images"), "attention": ("attention weights", "with attention")}
POLICIES = ("float32", "mixed_bfloat16", "mixed_float16", "bfloat16", "float16", "float64")


@dataclasses.dataclass(frozen=True)
class Request:
    """Arguments of `zoo.get` that are not options of the family."""

    classes: int | None = None
    heads: Any = None
    input_shape: tuple[int, ...] | None = None
    include_top: bool = True
    classifier_activation: str | None = None
    dtype: str | None = None
    name: str | None = None
    preprocessing: Any = None
    cache_dir: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.name is not None and (not isinstance(self.name, str) or not self.name or "/" in self.name):
            raise BadOption(f"name must be a non-empty text without '/'. Received: name={self.name!r}")

    def as_stored(self, source: WeightsSource) -> Request:
        """Return the request with the classes and the input shape of a repository, where the user gives none."""
        classes = source.classes if self.classes is None and self.heads is None else self.classes
        shape = source.input_shape if self.input_shape is None else self.input_shape
        return dataclasses.replace(self, classes=classes, input_shape=shape)

    @property
    def cache(self) -> str | None:
        """The cache of the hub's client; None for its own."""
        return None if self.cache_dir is None else os.fspath(self.cache_dir)


def build(name: str, request: Request, weights: Any, options: dict[str, Any]) -> Any:
    """Build the model `name` and load its weights; see `zoo.get`."""
    name, weights = locate(name, weights, request.cache)
    return _build_loaded(models[name], request, weights, options)[0]


def build_features(
    name: str, levels: Any, request: Request, weights: Any, options: dict[str, Any], kind: str = "maps"
) -> Any:
    """Build the model that returns feature maps or attention weights; see `zoo.features`."""
    if kind not in KINDS:
        raise BadOption(f"kind must be one of {', '.join(KINDS)}. Received: kind={kind!r}")
    name, weights = locate(name, weights, request.cache)
    trunk, head = _build_loaded(models[name], dataclasses.replace(request, include_top=False), weights, options)
    tensors, (what, which) = head.attention if kind == "attention" else head.levels, KINDS[kind]
    if not tensors:
        raise BadOption(f"{name} has no {what}. Received: model={name!r}. Choose a model {which}.")
    outputs = [tensors[i] for i in _levels(levels, len(tensors))]
    return saving.make_model(trunk.input, outputs, request.name or f"{name}_features", trunk.zoo_info)


def _levels(levels: Any, count: int) -> list[int]:
    """Return the indices of feature maps, or raise BadOption."""
    indices = fit_type(tuple(range(count)) if levels is None else levels, tuple[int, ...], "levels")
    if not indices or not all(-count <= i < count for i in indices):
        raise BadOption(f"levels must be from 0 to {count - 1}, or negative from the end. Received: levels={levels}")
    return list(indices)


def _build_loaded(model: Model, request: Request, weights: Any, options: dict[str, Any]) -> tuple[Any, Head]:
    """Return the keras.Model with its weights, and its head, which holds the feature maps."""
    explicit = checked_options(model, options)
    if weights is None:
        return _construct(model, request, explicit)
    with layers.skip_initialization():
        source = open_weights(
            model,
            weights,
            lambda given, count: _candidates(model, request, {**given, **explicit}, count),
            request.cache,
        )
        request = request.as_stored(source)
        source, preprocessing = with_preprocessing(source, model.spec, request.preprocessing)
        variants = _variants(model, request, explicit)
        arguments = checked_options(model, choose_options(source, variants))
        info = dataclasses.replace(source.info or ModelInfo(model.spec.name), preprocessing=preprocessing)
        built, head = _construct(model, request, arguments, info)
        default = Request(input_shape=built.input_shape[1:])
        if load_weights(built, source, lambda: construct(model, default, arguments)[0]) or not _has_classes(built):
            built.zoo_info = dataclasses.replace(built.zoo_info, labels=None, labels_origin=None)
    note_assumption(source, variants)
    return built, head


def _variants(model: Model, request: Request, explicit: dict[str, Any]) -> Variants:
    """Return the models that options of an architecture give, with the requested or another input."""

    def build(options: Mapping[str, Any], shape: tuple[int, ...] | None) -> Any:
        given = Request(input_shape=request.input_shape if shape is None else shape)
        return construct(model, given, checked_options(model, dict(options)))[0]

    return Variants(model, effective_options(model, {}), explicit, build)


def _has_classes(model: Any) -> bool:
    """Return whether a model ends in the logits of one task."""
    return "logits" in {layer.name for layer in model.layers}


def _candidates(model: Model, request: Request, arguments: dict[str, Any], count: int | None) -> Iterator[Any]:
    """Yield models that a weights file may fit: as requested, with its head or none, with other channels."""
    shape = _input_shape(model.spec, request.input_shape)
    default = (*shape[:-1], model.spec.input_shape[-1])
    if task_of(model.spec.task).generates:
        yield construct(model, request, arguments)[0]
        return
    heads = [request, dataclasses.replace(request, classes=count, heads=None, include_top=True)]
    heads.append(dataclasses.replace(heads[1], classes=0, classifier_activation=None))
    for input_shape in dict.fromkeys([shape, default] if len(shape) == 3 else [shape]):
        for head in heads:
            yield construct(model, dataclasses.replace(head, input_shape=input_shape), arguments)[0]


def construct(model: Model, request: Request, options: dict[str, Any]) -> tuple[Any, list[Any]]:
    """Return the keras.Model with random weights, and its feature maps; see `_construct`."""
    built, head = _construct(model, request, options)
    return built, head.levels


def _construct(
    model: Model, request: Request, options: dict[str, Any], info: ModelInfo | None = None
) -> tuple[Any, Head]:
    """Return the keras.Model with random weights, and its head, which holds the feature maps.

    Args:
        model: the registered model.
        request: the user's arguments.
        options: checked options of the family.
        info: what is known of the weights; None for random ones.
    """
    shape = _input_shape(model.spec, request.input_shape)
    head = _head(model.spec, request)
    info = info or ModelInfo(model.spec.name, preprocessing=_preprocessing(model.spec, request))
    info = dataclasses.replace(info, options=effective_options(model, options))
    sizes = {"classes": request.classes, "input_shape": request.input_shape, **options}
    given = {name: value for name, value in sizes.items() if value is not None}
    arguments = _arguments(model.build, {**default_options(model), **options})
    with dtype_policy(request.dtype), channels_last(), within_memory(model.spec.name, given):
        if is_large(given):
            with shapes_only():
                model.build(make_inputs(model.spec, shape), _head(model.spec, request), **arguments)
        inputs = make_inputs(model.spec, shape)
        x = inputs if info.rescaling is None else rescale(inputs, info.rescaling)
        outputs = model.build(x, head, **arguments)
        return saving.make_model(inputs, outputs, request.name or model.spec.name, info), head


def _preprocessing(spec: ModelSpec, request: Request) -> PreprocessingConfig:
    """Return the preprocessing of a model with random weights: as stated, or the spec's."""
    if request.preprocessing is None:
        return spec.preprocessing
    # A loaded model takes RGB; "bgr" describes a file.
    return dataclasses.replace(parse_preprocessing(request.preprocessing), channel_order="rgb")


def make_inputs(spec: ModelSpec, shape: tuple[int, ...]) -> Any:
    """Return the symbolic input of a model; a dictionary by input name if there are several."""
    if len(spec.inputs) == 1:
        return keras.Input(shape, name=spec.inputs[0], dtype=spec.input_dtype)
    lengths = zip(spec.inputs, shape, strict=True)
    return {name: keras.Input((length,), name=name, dtype=spec.input_dtype) for name, length in lengths}


def effective_options(model: Model, options: dict[str, Any]) -> dict[str, Any]:
    """Return all options with which a model is built, by name."""
    given = {**default_options(model), **options}
    return {name: given.get(name, option.default) for name, option in options_of(model).items()}


def default_options(model: Model) -> dict[str, Any]:
    """Return the builder's options that make the variant."""
    known = {"vocabulary": model.spec.vocabulary} if model.spec.vocabulary else {}
    return known | model.arguments


@contextlib.contextmanager
def channels_last() -> Iterator[None]:
    """Set Keras' global image data format to channels_last and restore it: every model takes (n, h, w, c)."""
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_image_data_format(before)


@contextlib.contextmanager
def dtype_policy(name: str | None) -> Iterator[None]:
    """Set Keras' global dtype policy and restore it; None keeps the current policy."""
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
    """Return the options that `zoo.get` accepts for a model, each with its default and type.

    The options are the builder's keyword-only parameters; a parameter with a dataclass type is a group of options, one
    per field.
    """
    options = {}
    for parameter in _parameters(model.build):
        fields = _fields(parameter)
        for option in fields or [parameter]:
            if not callable(model.arguments.get(option.name)):
                options[option.name] = option
    return options


def _parameters(build: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the keyword-only parameters of a builder with their types resolved."""
    types = typing.get_type_hints(build)
    parameters = inspect.signature(build).parameters.values()
    return [p.replace(annotation=types.get(p.name, Any)) for p in parameters if p.kind is p.KEYWORD_ONLY]


def _fields(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    """Return the fields of a group of options as parameters; an empty list for a single option."""
    if not dataclasses.is_dataclass(parameter.annotation):
        return []
    types, kind = typing.get_type_hints(parameter.annotation), inspect.Parameter.KEYWORD_ONLY
    fields = dataclasses.fields(parameter.annotation)
    return [inspect.Parameter(f.name, kind, default=f.default, annotation=types[f.name]) for f in fields]


def _arguments(build: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return the options as the builder's arguments: a group's options become one dataclass."""
    rest, groups = dict(options), {}
    for parameter in _parameters(build):
        names = [field.name for field in _fields(parameter)]
        if names:
            groups[parameter.name] = parameter.annotation(**{name: rest.pop(name) for name in names if name in rest})
    return rest | groups


def check_options(name: str, options: dict[str, Any]) -> None:
    """Raise UnknownName or BadOption as `zoo.get(name, **options)` does, without building the model."""
    checked_options(models[name], options)


def checked_options(model: Model, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options converted to the builder's types, or raise BadOption."""
    known = options_of(model)
    for name in options:
        if name not in known:
            raise BadOption(
                f"{model.spec.name} has no such option. Received: {name}={options[name]!r}. {did_you_mean(name, known)}"
            )
    fitting = {name: fit_type(value, known[name].annotation, name) for name, value in options.items()}
    for name, value in fitting.items():
        check_option(name, value)
    return fitting


def _input_shape(spec: ModelSpec, shape: Any) -> tuple[int, ...]:
    """Return the checked input shape, or raise BadOption."""
    shape = fit_type(spec.input_shape if shape is None else shape, tuple[int, ...], "input_shape")
    image = spec.inputs == ("image",)
    if not shape or min(shape) < 1 or (len(shape) != len(spec.input_shape) and spec.inputs != ("features",)):
        raise BadOption(
            f"{spec.name} needs input_shape to be {SHAPES[spec.inputs]} of at least 1. Received: input_shape={shape}"
        )
    check_shape(shape, image)
    if image and min(shape[:2]) < spec.min_size:
        raise BadOption(
            f"{spec.name} needs images of at least {spec.min_size}x{spec.min_size} pixels. "
            f"Received: input_shape={shape}. Use larger images or a model for small ones (zoo list --tag small)."
        )
    return shape


def _head(spec: ModelSpec, request: Request) -> Head:
    """Return the requested head."""
    if request.classes is not None and request.heads is not None:
        raise BadOption(
            f"Expected classes or heads, not both. Received: classes={request.classes}, heads={request.heads}"
        )
    default = 0 if task_of(spec.task).vectors else spec.classes
    classes = default if request.classes is None else fit_type(request.classes, int, "classes")
    check_option("classes", classes)
    if classes < 0:
        raise BadOption(f"classes must be at least 1, or 0 for pooled features. Received: classes={classes}")
    include_top = fit_type(request.include_top, bool, "include_top")
    if task_of(spec.task).generates:
        return _generating_head(spec, request, include_top and bool(classes))
    return Head(tasks_of(classes, request.heads, request.classifier_activation), include_top)


def _generating_head(spec: ModelSpec, request: Request, include_top: bool) -> Head:
    """Return the head of a sequence-to-sequence model, which predicts tokens of its vocabulary."""
    if request.classes or request.heads is not None:
        raise BadOption(
            f"{spec.name} predicts the tokens of its vocabulary: set vocabulary= instead. "
            f"Received: classes={request.classes}, heads={request.heads}"
        )
    return Head(tasks_of(spec.classes, None, request.classifier_activation), include_top)
