"""Every private API of tensorflow-model-optimization, tf_keras and TensorFlow that compressions use.

`tests/export/compression/test_compat.py` names each symbol, so that an upstream change fails with a clear message.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from typing import Any

from zoo.common.lazy import tf

CLUSTERING = "tensorflow_model_optimization.python.core.clustering.keras.experimental.cluster"
QUANTIZE_REGISTRY = (
    "tensorflow_model_optimization.python.core.quantization.keras.default_8bit.default_8bit_quantize_registry"
)
FREEZING = "tensorflow.python.framework.convert_to_constants"


@functools.cache
def import_tfmot() -> Any:
    """Return tensorflow_model_optimization, imported so that tf.keras stays Keras 3 in this process.

    The import sets TF_USE_LEGACY_KERAS, which would affect child processes and the first use of tf.keras.
    """
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    _ = tf.keras.Model
    try:
        return importlib.import_module("tensorflow_model_optimization")
    finally:
        if before is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = before


def sparse_cluster_weights() -> Callable[..., Any]:
    """Return tfmot's experimental `cluster_weights`, which has the option preserve_sparsity."""
    import_tfmot()
    return importlib.import_module(CLUSTERING).cluster_weights


def quantize_registry() -> Any:
    """Return tfmot's `Default8BitQuantizeRegistry`; `supports(layer)` is whether QAT supports a layer."""
    import_tfmot()
    return importlib.import_module(QUANTIZE_REGISTRY).Default8BitQuantizeRegistry()


def set_constraint(variable: Any, constraint: Callable[[Any], Any] | None) -> None:
    """Set the constraint of a tf_keras variable, which has no public setter; optimizers apply it after each update."""
    variable._constraint = constraint


def frozen_function(function: Any) -> Any:
    """Return a concrete function with its variables as constants; the TFLite converter fails on READ_VARIABLE."""
    return importlib.import_module(FREEZING).convert_variables_to_constants_v2(function)
