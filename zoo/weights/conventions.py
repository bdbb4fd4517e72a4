"""The options with which weights were made: as their file states them, or as one of the known conventions.

Padding, epsilon or activation change what a model computes and leave no trace in the shapes of its weights.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from zoo.common import compat
from zoo.common.errors import BadOption
from zoo.common.lazy import keras, np
from zoo.specs.preprocessing import PreprocessingConfig, parse_preprocessing
from zoo.specs.registry import Model, ModelSpec
from zoo.weights.source import OWN_NAMES, WeightsSource

# Keys of a layer's configuration that change nothing in inference.
TRAINING_KEYS = {"trainable", "dtype", "seed", "momentum", "drop_connect", "initial", "synchronized", "batch_shape"}
TRAINING_SUFFIXES = ("initializer", "regularizer", "constraint")
OUTPUTS = ("logits", "auxiliary", "average")  # names of heads end or begin with these


@dataclasses.dataclass(frozen=True)
class Variants:
    """The models that options of one architecture give.

    Args:
        entry: the registered model.
        defaults: all options of the architecture with their defaults.
        explicit: the user's options.
        build: builds the keras.Model of options, for the shape of one input or the requested one.
    """

    entry: Model
    defaults: Mapping[str, Any]
    explicit: Mapping[str, Any]
    build: Callable[[Mapping[str, Any], tuple[int, ...] | None], Any]

    def conventions(self) -> list[dict[str, Any]]:
        """Return the known sets of options, with the user's over each: ours first, then those of other libraries."""
        known = [mapping.arguments for mapping in self.entry.name_mappings.values()]
        names = {name for arguments in known for name in arguments}
        ours = {name: self.defaults[name] for name in sorted(names)}
        found = [{**ours, **arguments, **self.explicit} for arguments in ({}, *known)]
        return [each for i, each in enumerate(found) if each not in found[:i]]


def choose_options(source: WeightsSource, variants: Variants) -> dict[str, Any]:
    """Return the options of the model for a source.

    Raises:
        BadOption: the user's options contradict the source, or a source that states none fits several conventions.
    """
    if source.info is not None or source.torch:
        return _stated(source, variants)
    choices = variants.conventions()
    if source.model is not None and compat.is_functional(source.model):
        return _matching(source, variants, choices)
    if len(choices) > 1:
        raise BadOption(
            f"weights must state their options. Received: {source.received}, which fit {variants.entry.spec.name} with "
            f"{' or with '.join(map(_text, choices))}. Pass the options with which they were made."
        )
    return choices[0]


def with_preprocessing(
    source: WeightsSource, spec: ModelSpec, stated: Any
) -> tuple[WeightsSource, PreprocessingConfig | None]:
    """Return a source, and the preprocessing of its model: what the source states, else what the user states.

    Raises:
        BadOption: both are stated and differ in values or channel order.
    """
    known = source.info.preprocessing if source.info else None
    if stated is None:
        # Token ids take none.
        return source, spec.preprocessing if known is None and spec.vocabulary else known
    given = parse_preprocessing(stated)
    if known is None:
        source = dataclasses.replace(source, bgr=given.channel_order == "bgr")
    elif not _same_values(known, given) or (given.channel_order == "bgr") != source.bgr:
        raise BadOption(
            f"preprocessing must be that of the weights. Received: {given.to_json()} for {source.received}, which "
            f"state {known.to_json()}. Leave it out."
        )
    return source, dataclasses.replace(given, channel_order="rgb")


def _same_values(one: PreprocessingConfig, other: PreprocessingConfig) -> bool:
    """Return whether two configs scale pixels alike; how images are resized and cropped is the user's choice."""
    pairs = zip(one.affine(), other.affine(), strict=True)
    return all(np.allclose(a, b, rtol=1e-6, atol=1e-8) for a, b in pairs)


def note_assumption(source: WeightsSource, variants: Variants) -> None:
    """Warn that the options of a source were assumed, if it states none and nothing showed them."""
    if source.info is None and source.model is None and not source.torch:
        warnings.warn(
            f"{source.received} state no options: those of {variants.entry.spec.name} are assumed.", stacklevel=2
        )


def _stated(source: WeightsSource, variants: Variants) -> dict[str, Any]:
    """Return the options that a source states, with the user's where both compute the same."""
    stated = source.info.options if source.info else {}
    given = {**source.name_mapping.arguments, **{n: v for n, v in stated.items() if not OWN_NAMES.ignores(n)}}
    for name in given.keys() - variants.defaults.keys():
        raise BadOption(
            f"weights must fit {variants.entry.spec.name}. Received: {source.received}, made with {name}="
            f"{given[name]!r}, an option that this version does not have. Use the version that wrote them."
        )
    whole = given
    if (given or source.library == "keras" or source.published) and not source.name_mapping.open:
        whole = {**variants.defaults, **given}
    differing = {n: v for n, v in variants.explicit.items() if n in whole and whole[n] != v}
    if differing and not _compute_the_same(variants, given, {**given, **differing}):
        theirs = _text({name: whole[name] for name in differing})
        raise BadOption(
            f"options must be those with which the weights were made. Received: {_text(differing)} for "
            f"{source.received}, made with {theirs}. Leave the option out, or pass other weights."
        )
    return {**given, **variants.explicit}


def _compute_the_same(variants: Variants, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two sets of options give the same graph, or another one around the same layers with weights.

    Such layers must be equal to the letter: no tolerance tells an epsilon from another. Layers without weights may be
    others if the outputs are the same.
    """
    models = [variants.build(options, None) for options in (one, other)]
    graphs = [inference_graph(model) for model in models]
    if graphs[0] == graphs[1]:
        return True
    layers = [_with_weights(model, graph) for model, graph in zip(models, graphs, strict=True)]
    return layers[0] == layers[1] and _outputs_agree(*models)


def _with_weights(model: Any, graph: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """Return the shape of each weight of a model by its path, and the configuration of the layer that has it."""
    inputs = {"inputs": None}  # which may differ in their names
    return [
        (weight.path, tuple(weight.shape), {**graph.get(layer.name, {}), **inputs})
        for layer in model.layers
        for weight in layer.weights
    ]


def _outputs_agree(one: Any, other: Any) -> bool:
    """Return whether two models have the same outputs for the same random weights, up to float32's rounding."""
    models = (one, other)
    draw = np.random.default_rng(0)
    values = [draw.normal(0.0, 0.3, weight.shape) for weight in one.weights]
    values = [np.abs(v) + 0.1 if "variance" in w.path else v for v, w in zip(values, one.weights, strict=True)]
    drawn = {tensor.name: draw.integers(1, 4, (2, *tensor.shape[1:])).astype(tensor.dtype) for tensor in one.inputs}
    inputs = drawn if isinstance(one.input, dict) else next(iter(drawn.values()))
    for model in models:
        model.set_weights(values)
    found = [[np.asarray(y) for y in keras.tree.flatten(model(inputs, training=False))] for model in models]
    return len(found[0]) == len(found[1]) and all(
        a.shape == b.shape and np.abs(a - b).max() <= 1e-4 * np.abs(a).max() for a, b in zip(*found, strict=True)
    )


def _matching(source: WeightsSource, variants: Variants, choices: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the first of several sets of options that computes what the source's model does."""
    theirs, difference = inference_graph(source.model), ""
    for options in choices:
        try:
            ours = variants.build(options, _shape(source.model))
        except BadOption:
            return choices[0]  # the weights cannot fit either, which loading reports
        found = _difference(ours, theirs)
        if found is None:
            return options
        difference = difference or found
    raise BadOption(
        f"weights must be of a model with the same options as {variants.entry.spec.name}. Received: {source.received}, "
        f"where {difference}. Pass the options with which it was made."
    )


def _shape(model: Any) -> tuple[int, ...] | None:
    """Return the shape of one input of a model as `zoo.get` takes it."""
    shapes = [tuple(x.shape[1:]) for x in model.inputs]
    shape = shapes[0] if len(shapes) == 1 else tuple(size for each in shapes for size in each)
    return shape if None not in shape else None


def _difference(ours: Any, theirs: Mapping[str, Any]) -> str | None:
    """Return the first layer that computes something else in their graph, in words; None if there is none.

    Layers that only one of both has are no difference: a model without its head has fewer, and loading reports others.
    """
    for name, node in inference_graph(ours).items():
        if name not in theirs:
            continue
        for key in sorted(node.keys() | theirs[name].keys()):
            one, other = theirs[name].get(key), node.get(key)
            if one != other:
                return f"{name} has {key}={one}, not {other}"
    return None


def inference_graph(model: Any) -> dict[str, dict[str, Any]]:
    """Return what a functional model computes in inference: the configuration and inputs of each operation, by name.

    Dropout, heads and inputs are left out, and so are sizes that follow from the shape of the weights.
    """
    if not compat.is_functional(model):
        return {}
    passes: dict[str, list[str]] = {}
    graph: dict[str, dict[str, Any]] = {}
    for node in compat.nodes(model):
        producers = [compat.producer(tensor).name for tensor in node.input_tensors]
        producers = [name for each in producers for name in passes.get(each, [each])]
        operation = node.operation
        if _is_dropout(operation):
            passes[operation.name] = producers
        elif not node.is_input and not _is_head(operation.name):
            graph.setdefault(operation.name, {"kind": _kind(operation), **_config(operation), "inputs": []})
            graph[operation.name]["inputs"].append(producers)
    return graph


def _is_dropout(operation: Any) -> bool:
    return isinstance(operation, keras.layers.Dropout)


def _is_head(name: str) -> bool:
    return name.startswith(OUTPUTS) or name.endswith(OUTPUTS)


def _kind(operation: Any) -> str:
    """Return the name of an operation's class, of Keras' own if it extends one."""
    for kind in type(operation).__mro__:
        if kind.__module__.startswith("keras.") and kind.__name__ not in ("Layer", "Operation"):
            return kind.__name__
    return type(operation).__name__


def _config(operation: Any) -> dict[str, Any]:
    """Return the configuration of an operation that changes what it computes, JSON-safe."""
    config = operation.get_config() if isinstance(operation, keras.layers.Layer) else {}
    kept = {
        key: value
        for key, value in config.items()
        if key not in TRAINING_KEYS and not key.endswith(TRAINING_SUFFIXES) and key != "name"
    }
    return json.loads(json.dumps(kept, default=str))


def _text(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())
