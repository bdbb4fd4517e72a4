"""The head and the trunk of a model: which layers a stage of fine-tuning trains, and the two as models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from training.recipe.recipe import Recipe
from training.recipe.stages import ALL, HEAD, freezes_batch_norm, stages_of
from zoo.common import compat
from zoo.common.errors import BadOption
from zoo.common.lazy import keras


def head_layers(model: Any) -> list[Any]:
    """Return the last layers with weights before each output of a functional model: the classifiers."""
    found: dict[int, Any] = {}
    tensors = list(keras.tree.flatten(model.output))
    while tensors:
        layer = compat.producer(tensors.pop())
        if _has_weights(layer):
            found[id(layer)] = layer
        else:
            tensors += _inputs(layer)
    return list(found.values())


def trained_layers(model: Any, trains: str) -> list[Any]:
    """Return the layers with weights that a stage trains.

    Args:
        model: a functional model.
        trains: "head", "all", or the name of the first layer or block.

    Raises:
        BadOption: there is no such layer or block.
    """
    layers = [layer for layer in model.layers if layer.weights]
    if trains == ALL:
        return layers
    if trains == HEAD:
        return head_layers(model)
    first = next((i for i, layer in enumerate(layers) if f"{layer.name}_".startswith(f"{trains}_")), None)
    if first is None:
        blocks = list(dict.fromkeys(layer.name.partition("_")[0] for layer in layers))
        raise BadOption(
            f"finetune.stages must name a layer or block of {model.name}. Received: {trains!r}. "
            f"Use {HEAD}, {ALL}, or one of {', '.join(blocks)}."
        )
    return layers[first:]


def prepare_stages(model: Any, recipe: Recipe) -> None:
    """Check the stages of a recipe against its model, and freeze statistics of batch normalization as it states.

    Raises:
        BadOption: a stage names a layer that the model does not have, or the head needs more than features.
    """
    if recipe.finetune.stages:
        for stage in stages_of(recipe):
            trained_layers(model, stage.trains)
    if recipe.finetune.views:
        split_model(model)
    if freezes_batch_norm(recipe):
        freeze_statistics(model)


def freeze(model: Any, trains: str) -> None:
    """Let a model train the layers of a stage alone; see `trained_layers`."""
    kept = {id(layer) for layer in trained_layers(model, trains)}
    for layer in model.layers:
        if layer.weights:
            layer.trainable = id(layer) in kept


def freeze_statistics(model: Any) -> None:
    """Let the batch normalization of a model use its moving statistics, and keep them, also in training."""
    for layer in compat.flatten_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.call = _in_inference(layer)


def _in_inference(layer: Any) -> Any:
    call = layer.call

    return lambda *inputs, **options: call(*inputs, **{**options, "training": False})


def split_model(model: Any) -> tuple[Any, Any]:
    """Return the trunk and the head of a functional model, which share its layers.

    Returns:
        A model from the inputs to the features before the dropout of the classifier, a dictionary if there are
        several, and one from these to the outputs.

    Raises:
        BadOption: the head uses the inputs in another way, such as a tied embedding.
    """
    found = {id(t): t for layer in head_layers(model) for t in map(_before_dropout, _inputs(layer))}
    named = {tensor.name: tensor for tensor in found.values()}
    features = named if len(named) > 1 else next(iter(named.values()))
    trunk = keras.Model(model.input, features)
    try:
        head = keras.Model(features, model.output)
    except ValueError as error:
        raise BadOption(
            f"finetune.views needs a model whose head depends on features alone. Received: {model.name}. "
            "Set finetune.views=0."
        ) from error
    return trunk, head


def _before_dropout(tensor: Any) -> Any:
    """Return the tensor before layers that are random in training."""
    layer = compat.producer(tensor)
    random = getattr(layer, "seed_generator", None) is not None and not _has_weights(layer)
    return _before_dropout(_inputs(layer)[0]) if random else tensor


def _has_weights(layer: Any) -> bool:
    return bool(getattr(layer, "weights", ()))


def _inputs(layer: Any) -> list[Any]:
    """Return the tensors that a layer of a graph takes."""
    return list(dict(_first_inputs(layer)).values())


def _first_inputs(layer: Any) -> Iterator[tuple[int, Any]]:
    for node in compat.inbound_nodes(layer)[:1]:
        yield from ((id(tensor), tensor) for tensor in node.input_tensors)
