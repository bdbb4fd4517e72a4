"""Canaries for the private APIs in `export.compression.compat`: a failure names the symbol that upstream changed."""

from __future__ import annotations

import inspect

import pytest

from export.compression import compat

CANARY = """
import inspect, json
from export.compression import compat
print(json.dumps({
    "CentroidInitialization": hasattr(compat.import_tfmot().clustering.keras, "CentroidInitialization"),
    "cluster_weights": list(inspect.signature(compat.sparse_cluster_weights()).parameters),
    "supports": callable(getattr(compat.quantize_registry(), "supports", None)),
}))
"""


def test_convert_variables_to_constants_v2():
    """tensorflow.python.framework.convert_to_constants.convert_variables_to_constants_v2 freezes variables."""
    import tensorflow as tf

    variable = tf.Variable(2.0)
    function = tf.function(lambda x: x * variable, input_signature=[tf.TensorSpec((1,), tf.float32)])
    frozen = compat.frozen_function(function.get_concrete_function())
    message = f"{compat.FREEZING}.convert_variables_to_constants_v2 changed"
    assert not frozen.graph.variables, message
    assert frozen(tf.constant([3.0]))[0].numpy()[0] == 6.0, message


def test_tf_keras_variable_constraint():
    """`tf.Variable._constraint` is what `tf.Variable.constraint` returns."""
    import tensorflow as tf

    variable = tf.Variable(1.0)
    compat.set_constraint(variable, abs)
    assert variable.constraint is abs, "tf.Variable._constraint no longer sets tf.Variable.constraint"


@pytest.mark.slow
def test_tfmot(python):
    """The private modules of tensorflow-model-optimization, in a child process because the import changes it."""
    import json

    out, err = python("-c", CANARY).communicate(timeout=240)
    assert out, f"{compat.CLUSTERING} or {compat.QUANTIZE_REGISTRY} changed: {err[-500:]}"
    found = json.loads(out.splitlines()[-1])
    assert found["CentroidInitialization"], "tfmot.clustering.keras.CentroidInitialization is gone"
    assert "to_cluster" in found["cluster_weights"], f"{compat.CLUSTERING}.cluster_weights changed"
    assert found["supports"], f"{compat.QUANTIZE_REGISTRY}.Default8BitQuantizeRegistry.supports is gone"


def test_compat_is_documented():
    """Every function names the upstream symbol in its docstring."""
    functions = [f for _, f in inspect.getmembers(compat, inspect.isfunction) if f.__module__ == compat.__name__]
    assert functions
    assert all(function.__doc__ for function in functions)
