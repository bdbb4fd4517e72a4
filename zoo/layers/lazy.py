"""Layers as lazy modules, which import Keras on first use."""

from __future__ import annotations

from zoo.common.lazy import LazyModule

layers = LazyModule("zoo.layers.core")
saving = LazyModule("zoo.layers.saving")
sequence = LazyModule("zoo.layers.sequence")
tabular = LazyModule("zoo.layers.tabular")
