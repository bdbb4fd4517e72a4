"""A user's model with one name for each input and output, and how manifests describe them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from export.source.source import named_inputs
from zoo.common import compat
from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.specs.tasks import ANY, CLASSIFY, MULTITASK, task_of

if TYPE_CHECKING:
    import keras as _keras

# Signatures, ONNX and TensorFlow take names of these characters.
UNNAMED = re.compile(r"[^A-Za-z0-9_]+")


def named_model(
    model: _keras.Model, given: Mapping[str, tuple[Sequence[Any], str]]
) -> tuple[_keras.Model, dict[str, Any]]:
    """Return a functional model with the same layers, and the metadata of its interface.

    One input and one output are tensors; several are dictionaries by name.

    Args:
        model: any built model.
        given: shape with the batch, and dtype, of examples by input; for a subclassed model, which does not state them.

    Raises:
        BadOption: the inputs are not known, or an output has no fixed structure.
    """
    called = _functional(model, given)
    inputs, outputs = _by_name(called.input), _by_name(called.output)
    outputs = {(f"{name}_output" if name in inputs else name): tensor for name, tensor in outputs.items()}
    functional = keras.Model(_one_or_all(inputs), _one_or_all(outputs), name=_clean(model.name))
    functional = _renamed(functional, list(inputs))
    structure = {
        "inputs": _packed(called.input, iter(inputs)), "outputs": _packed(called.output, iter(outputs))
    }  # fmt: skip
    return functional, _described(functional, inputs, outputs) | {"structure": structure}


def _functional(model: _keras.Model, given: Mapping[str, tuple[Sequence[Any], str]]) -> _keras.Model:
    """Return a functional model with the layers of any model."""
    if compat.is_functional(model):
        return model
    if getattr(model, "inputs", None) and getattr(model, "outputs", None):  # a Sequential model
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return _traced(model, given)


def _renamed(model: _keras.Model, names: Sequence[str]) -> _keras.Model:
    """Return a model with an input of another name in front, if its only one has another name."""
    if len(names) > 1 or list(named_inputs(model)) == list(names):
        return model
    (tensor,), (name,) = model.inputs, names
    inputs = keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)
    return keras.Model(inputs, model(inputs), name=model.name)


def _traced(model: _keras.Model, given: Mapping[str, tuple[Sequence[Any], str]]) -> _keras.Model:
    """Return a functional model around a subclassed one."""
    shapes = given or _built_shapes(model)
    if not shapes:
        raise BadOption(
            f"A subclassed model must be built, or come with examples. Received: {model.name!r}, which was never "
            "called. Call it once, or pass calibration=."
        )
    inputs = {
        name: keras.Input(tuple(shape[1:]), dtype=dtype, name=_clean(name)) for name, (shape, dtype) in shapes.items()
    }
    value = next(iter(inputs.values())) if len(inputs) == 1 else _arguments(model, inputs)
    return keras.Model(_one_or_all(inputs), model(value), name=model.name)


def _arguments(model: _keras.Model, inputs: Mapping[str, Any]) -> Any:
    """Return several inputs as a subclassed model takes them in its only argument."""
    config = model.get_build_config() or {}
    stated = config.get("input_shape")
    return dict(inputs) if stated is None or isinstance(stated, dict) else list(inputs.values())


def _built_shapes(model: _keras.Model) -> dict[str, tuple[Sequence[Any], str]]:
    """Return the shapes that a subclassed model was built with, and their dtype."""
    config = (model.get_build_config() or {}) if model.built else {}
    shapes = config.get("input_shape") or config.get("shapes_dict") or {}
    if isinstance(shapes, dict):
        return {name.removesuffix("_shape"): (shape, _first_dtype(model)) for name, shape in shapes.items()}
    name = next(iter(inspect.signature(model.call).parameters), "inputs")
    if shapes and not isinstance(shapes[0], (list, tuple)):
        return {name: (shapes, _first_dtype(model))}
    return {f"{name}_{number}": (shape, _first_dtype(model)) for number, shape in enumerate(shapes)}


def _first_dtype(model: _keras.Model) -> str:
    """Return int32 for a model that begins with an embedding, else float32."""
    first = next(iter(compat.flatten_layers(model, include_self=False)), None)
    return "int32" if isinstance(first, keras.layers.Embedding) else "float32"


def _by_name(structure: Any) -> dict[str, Any]:
    """Return the symbolic tensors of a structure by name: keys of dictionaries, else the names of their layers."""
    leaves = list(_leaves(structure))
    names = _distinct([key or layer_name(tensor) for key, tensor in leaves])
    return dict(zip(names, (tensor for _, tensor in leaves), strict=True))


def _leaves(structure: Any) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of a structure in the user's order, each with its key if it is in a dictionary."""
    if isinstance(structure, dict):
        for key, value in structure.items():
            yield from ((inner or str(key), tensor) for inner, tensor in _leaves(value))
    elif isinstance(structure, (list, tuple)):
        for value in structure:
            yield from _leaves(value)
    else:
        yield "", structure


def _packed(structure: Any, names: Iterator[str]) -> Any:
    """Return a structure with names instead of tensors, JSON-safe."""
    if isinstance(structure, dict):
        return {str(key): _packed(value, names) for key, value in structure.items()}
    if isinstance(structure, (list, tuple)):
        return [_packed(value, names) for value in structure]
    return next(names)


def layer_name(tensor: Any) -> str:
    """Return the name of the layer that makes a symbolic tensor, or the tensor's own."""
    layer = compat.producer(tensor)
    return getattr(layer, "name", None) or tensor.name


def _distinct(names: Sequence[str]) -> list[str]:
    """Return names of the characters that all formats take, with a number after those that are there already."""
    found: list[str] = []
    for name in map(_clean, names):
        number, distinct = 1, name
        while distinct in found:
            number, distinct = number + 1, f"{name}_{number}"
        found.append(distinct)
    return found


def _clean(name: str) -> str:
    """Return a name with other characters replaced."""
    return UNNAMED.sub("_", name).strip("_") or "value"


def _one_or_all(tensors: Mapping[str, Any]) -> Any:
    return next(iter(tensors.values())) if len(tensors) == 1 else dict(tensors)


def _described(model: _keras.Model, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of the interface; see `export.core.metadata.model_metadata`."""
    described = [
        {"name": name, "dtype": str(tensor.dtype), "shape": list(tensor.shape[1:])}
        for name, tensor in named_inputs(model).items()
    ]
    found: dict[str, Any] = {"input": described[0]["name"], **{key: described[0][key] for key in ("dtype", "shape")}}
    if len(inputs) > 1:
        found["inputs"] = described
    if len(outputs) == 1:
        ((name, tensor),) = outputs.items()
        return found | {"output": name, "task": output_task(tensor)}
    several = [
        {"name": name, "task": output_task(tensor), "labels": _numbers(tensor)} for name, tensor in outputs.items()
    ]
    return found | {"task": MULTITASK, "outputs": several}


def output_task(tensor: Any) -> str:
    """Return "classify" for (n, classes) of a softmax, else "any"."""
    layer = compat.producer(tensor)
    activation = getattr(layer, "activation", None)
    is_softmax = isinstance(layer, keras.layers.Softmax) or activation is keras.activations.softmax
    return CLASSIFY if is_softmax and len(tensor.shape) == 2 else ANY


def is_sigmoid(tensor: Any) -> bool:
    """Return whether an output is that of a sigmoid, by a layer or by an operation of its name."""
    layer = compat.producer(tensor)
    return getattr(layer, "activation", None) is keras.activations.sigmoid or type(layer).__name__ == "Sigmoid"


def _numbers(tensor: Any) -> list[str]:
    return list(map(str, range(tensor.shape[-1]))) if task_of(output_task(tensor)).classes else []


def embedded(model: _keras.Model) -> Iterator[tuple[str, int]]:
    """Yield the inputs that an embedding reads, each with the number of its tokens."""
    names = {id(tensor): name for name, tensor in named_inputs(model).items()}
    for layer in compat.flatten_layers(model, include_self=False):
        if isinstance(layer, keras.layers.Embedding):
            for node in compat.inbound_nodes(layer):
                for tensor in node.input_tensors:
                    if id(tensor) in names:
                        yield names[id(tensor)], layer.input_dim
