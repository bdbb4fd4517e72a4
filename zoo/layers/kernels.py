"""Conditions under which a layer uses a faster kernel than Keras, and the end that all these kernels share."""

from __future__ import annotations

from typing import Any

from zoo.common.fused import use_fused
from zoo.common.lazy import keras
from zoo.layers import bfloat16


def on_tensorflow() -> bool:
    """Return whether Keras runs on TensorFlow."""
    return keras.backend.backend() == "tensorflow"


def trains_on_cpu(inputs: Any) -> bool:
    """Return whether the kernels that are faster in training on CPU support these inputs; not with ZOO_FUSED=0."""
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    return use_fused() and on_tensorflow() and dtype in ("float32", "bfloat16") and not bfloat16.has_gpu()


def trains_in_bfloat16_on_cpu(inputs: Any) -> bool:
    """Return whether the kernels that are faster in bfloat16 training on CPU support these inputs."""
    in_bfloat16 = keras.backend.standardize_dtype(inputs.dtype) == "bfloat16"
    return in_bfloat16 and trains_on_cpu(inputs) and bfloat16.has_onednn()


def add_bias_and_activate(layer: Any, outputs: Any) -> Any:
    """Add a layer's bias and apply its activation, as Keras does after its own kernel."""
    if layer.use_bias:
        outputs = keras.ops.add(outputs, keras.ops.cast(layer.bias, outputs.dtype))
    return outputs if layer.activation is None else layer.activation(outputs)
