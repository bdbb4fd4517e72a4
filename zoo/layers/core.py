"""Layers that Keras lacks or runs slowly. Imports Keras: use them through `zoo.layers.lazy.layers`.

Layers that extend a Keras layer of the same name compute the same function with a faster kernel, and are saved as the
Keras layer: a `.keras` file of such a model opens with Keras alone (see `zoo.layers.saving`).
"""

from __future__ import annotations

from zoo.layers.convolution import Conv2D, DepthwiseConv2D
from zoo.layers.dense import Activation, Dense, DropConnectDense, gelu_tanh
from zoo.layers.initializers import VarianceScaling, skip_initialization
from zoo.layers.normalization import BatchNormalization, LayerNormalization, LayerScale, LocalResponseNormalization

__all__ = [
    "Activation",
    "BatchNormalization",
    "Conv2D",
    "Dense",
    "DepthwiseConv2D",
    "DropConnectDense",
    "LayerNormalization",
    "LayerScale",
    "LocalResponseNormalization",
    "VarianceScaling",
    "gelu_tanh",
    "skip_initialization",
]
