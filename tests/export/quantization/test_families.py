"""Every family can be prepared for int8: the outputs stay, with kernels on the grid."""

from __future__ import annotations

import numpy as np
import pytest

import zoo
from export.core.samples import predict_in_batches
from export.quantization.options import QuantizationOptions
from export.quantization.prepare import prepared
from export.quantization.write import signal_to_noise
from export.source.registry_source import open_registry_source
from export.source.request import RegistryRequest

QUICK = ("vit_micro_tiny",)
TINY = [name for name in zoo.list_models("*_tiny") if zoo.spec(name).params < 1_000_000]


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in TINY
])  # fmt: skip
def test_prepared_outputs_are_those_of_the_model(name, tmp_path):
    """With random weights, 20 dB or more; weights of 8 bits alone have 30 to 45."""
    preprocessing = {} if zoo.spec(name).vocabulary else {"preprocessing": '{"mean": [127.5], "std": [127.5]}'}
    source, samples = open_registry_source(RegistryRequest(name, "random", "", preprocessing), tmp_path)
    found = prepared(source, QuantizationOptions(rounding="learned", equalize=True))
    logits = predict_in_batches(found.model, samples["inputs"])
    assert signal_to_noise(logits, samples["logits"]) > 20
    assert any((a.shape != b.shape or (a != b).any()) for a, b in zip(*weights(found, source), strict=False))
    assert np.isfinite(logits).all()
    assert found.metadata == source.metadata
    assert [tuple(p.inputs) for p in found.parts] == [tuple(p.inputs) for p in source.parts]


def weights(*sources):
    """The weights of models."""
    return [source.inner.get_weights() for source in sources]
