"""Every family leaves as every format: converted for real, run in the real runtime, compared with Keras."""

from __future__ import annotations

import numpy as np
import pytest

import zoo
from export._format import formats
from export._source import Source

FLOAT = ("saved_model", "tflite", "onnx")
TINY = [name for name in zoo.names() if zoo.spec(name).params < 400_000]
FIRST = {
    min((n for n in zoo.names(family=f) if n not in TINY), key=zoo.names().index, default="") for f in zoo.families()
}
PIXELS = zoo.Preprocessing((127.5,), (60.0,))


def source_of(name, folder):
    """The model with random weights and statistics that are not trivial, as formats see it, and raw values for it."""
    network = zoo.get(name)
    draw = np.random.default_rng(0)
    for variable in network.weights:
        if variable.name in ("moving_mean", "beta", "bias"):
            variable.assign(draw.uniform(-0.1, 0.1, variable.shape))
        elif variable.name in ("moving_variance", "gamma"):
            variable.assign(draw.uniform(0.8, 1.2, variable.shape))
    raw = draw.uniform(0, 255, (32, *network.input_shape[1:])).astype("float32")
    labels = [str(i) for i in range(network.output_shape[-1])]
    return Source(network, PIXELS, labels, lambda: raw, folder), raw


def written(source, fmt, folder):
    """The path of the artifact of a format."""
    path = folder / fmt / formats[fmt].file
    path.parent.mkdir(parents=True, exist_ok=True)
    formats[fmt].write(source, path)
    return path


def off(source, raw, fmt, folder, count=2):
    """How far the artifact is from its source, as a share of the largest logit."""
    expected = np.asarray(source.model(raw[:count]))
    found = formats[fmt].load(written(source, fmt, folder))(raw[:count])
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", TINY)
def test_small_models_leave_as_every_format(name, tmp_path):
    """Float artifacts are equal to the source; the others within the bound of their format, or refused by the spec."""
    source, raw = source_of(name, tmp_path / "shared")
    refused = dict(zoo.spec(name).unsupported)
    for fmt in formats.names(exclude="their_*"):
        if fmt not in refused:
            assert off(source, raw, fmt, tmp_path) <= formats[fmt].tolerance.relative, fmt


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FIRST - {""}))
def test_first_variants_are_equal_as_float(name, tmp_path):
    """The first full-size variant of each family is equal in TensorFlow, LiteRT and ONNX Runtime."""
    source, raw = source_of(name, tmp_path / "shared")
    for fmt in FLOAT:
        assert off(source, raw, fmt, tmp_path) <= formats[fmt].tolerance.relative, fmt
