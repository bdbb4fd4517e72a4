"""Private APIs of Keras and TensorFlow, each behind one function; no other module of the zoo calls them.

`tests/zoo/common/test_compat.py` has one test per function, which names the symbol when an upgrade changes it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from zoo.common.lazy import LazyModule, keras, tf

# Lazy imports are quiet: these may be the first of Keras and TensorFlow.
_functional = LazyModule("keras.src.models.functional")
_global_state = LazyModule("keras.src.backend.common.global_state")
_config = LazyModule("keras.src.backend.config")
_util_port = LazyModule("tensorflow.python.util._pywrap_util_port")
_utils = LazyModule("tensorflow.python.util._pywrap_utils")

UNINITIALIZED = "uninitialized_variables"  # the name in Keras' global state of weights that wait for their values


def producer(tensor: Any) -> Any:
    """Return the layer or operation that outputs a symbolic tensor; None for a value of another type."""
    history = getattr(tensor, "_keras_history", None)
    return None if history is None else history.operation


def is_functional(model: Any) -> bool:
    """Return whether a model is a functional keras.Model, a graph of layers."""
    return hasattr(model, "_nodes_by_depth")


def functional_class() -> type:
    """Return the class of functional models, which `keras.Model(inputs, outputs)` returns."""
    return _functional.Functional


def after_graph_run(kind: Any, function: Callable[[Any, Any], None]) -> None:
    """Call a function with (model, outputs) after each run of a functional model through its graph.

    `keras.models.clone_model` runs the graph of the original on new symbolic inputs.

    Args:
        kind: a class of functional models, which is changed.
        function: receives the model and its outputs.
    """
    run = kind._run_through_graph

    def run_through_graph(model: Any, *arguments: Any, **options: Any) -> Any:
        outputs = run(model, *arguments, **options)
        function(model, outputs)
        return outputs

    kind._run_through_graph = run_through_graph


def unpickle_model(content: Any) -> Any:
    """Return the model that Keras pickled, from the `.keras` file that its `__reduce__` returns."""
    return functional_class()._unpickle_model(content)


def nodes(model: Any) -> list[Any]:
    """Return the nodes (calls of layers) of a functional model in execution order.

    A node has `operation`, `arguments`, `input_tensors`, `output_tensors`, `outputs` and `is_input`; a shared layer has
    several nodes.
    """
    return [node for _, group in sorted(model._nodes_by_depth.items(), reverse=True) for node in group]


def inbound_nodes(layer: Any) -> list[Any]:
    """Return the calls of a layer in any graph; an empty list for what has none, such as a model."""
    return list(getattr(layer, "_inbound_nodes", ()))


def outbound_nodes(layer: Any) -> list[Any]:
    """Return the calls that take an output of a layer."""
    return list(layer._outbound_nodes)


def flatten_layers(layer: Any, include_self: bool = True, recursive: bool = True) -> Iterator[Any]:
    """Yield the layers inside a layer or model, also inside wrappers such as Bidirectional.

    Args:
        layer: the outer layer or model.
        include_self: yield the outer layer too.
        recursive: yield the layers of layers too.
    """
    yield from layer._flatten_layers(include_self=include_self, recursive=recursive)


def reduction_axes(layer: Any) -> list[int]:
    """Return the axes over which a built batch normalization averages."""
    return layer._reduction_axes


def batch_moments(layer: Any) -> Callable[..., Any]:
    """Return the function of (inputs, mask) that computes mean and variance in a batch normalization.

    Of a class it is the unbound method of (layer, inputs, mask).
    """
    return layer._moments


def set_batch_moments(layer: Any, moments: Callable[..., Any]) -> None:
    """Replace the function that computes mean and variance of a batch normalization, or of a class of them."""
    batch_moments(layer)
    layer._moments = moments


def set_mask(tensor: Any, mask: Any) -> None:
    """Attach a Keras mask to a tensor, as masking layers do; `keras.Layer` reads it when called with the tensor."""
    tensor._keras_mask = mask


@contextlib.contextmanager
def before_weights(function: Callable[[Any, tuple[int, ...], Any], None]) -> Iterator[None]:
    """Call a function with (layer, shape, dtype) before each layer makes a weight.

    Keras has no public hook before the values of a weight are allocated.
    """
    make = keras.layers.Layer.add_weight

    def add_weight(self: Any, shape: Any = None, initializer: Any = None, dtype: Any = None, **options: Any) -> Any:
        function(self, () if shape is None else tuple(shape), dtype or self.variable_dtype)
        return make(self, shape, initializer, dtype, **options)

    keras.layers.Layer.add_weight = add_weight
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = make


@contextlib.contextmanager
def without_values() -> Iterator[None]:
    """Build layers inside without the values of their weights, not even later.

    Keras remembers such weights, and the end of the next scope without state would make them all.
    """
    before = list(_global_state.get_global_attribute(UNINITIALIZED, []))
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        _global_state.set_global_attribute(UNINITIALIZED, before)


def run_graph(model: Any, inputs: Any, operation_fn: Callable[[Any], Callable[..., Any]]) -> Any:
    """Run a functional model with another function in the place of each operation.

    Args:
        model: the functional keras.Model.
        inputs: its inputs, in any structure that it accepts.
        operation_fn: returns the function to call for an operation.

    Returns:
        The outputs in the model's structure.
    """
    return model._run_through_graph(model._standardize_inputs(inputs), operation_fn=operation_fn)


def get_mask(tensor: Any) -> Any:
    """Return the Keras mask that a masking layer attached to a tensor, None if there is none."""
    return getattr(tensor, "_keras_mask", None)


def has_training_argument(operation: Any) -> bool:
    """Return whether the `call` of a layer takes a `training` argument; False for an operation of keras.ops."""
    return getattr(operation, "_call_has_training_arg", False)


def onednn_computes(dtype: str) -> bool:
    """Return whether oneDNN is on, and computes a dtype on this CPU."""
    supports = _utils.IsDataTypeSupportedByOneDNNOnThisCPU
    return bool(_util_port.IsMklEnabled() and supports(tf.as_dtype(dtype).as_datatype_enum))


@contextlib.contextmanager
def keras_home(folder: str | None) -> Iterator[None]:
    """Let Keras download files of its applications below another folder; None keeps its own."""
    before = _config._KERAS_DIR  # imports Keras
    config = sys.modules[_config.__name__]
    config._KERAS_DIR = folder or before
    try:
        yield
    finally:
        config._KERAS_DIR = before
