"""The closest of several quantized OpenVINO models is chosen, in batches and one by one."""

from __future__ import annotations

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from export.backends.openvino.smoothing import closest

EXAMPLES = [{"x": row} for row in np.random.default_rng(0).normal(size=(20, 1, 4)).astype("float32")]


def model(factor, batch=-1):
    """A model that multiplies its input."""
    x = ops.parameter([batch, 4], openvino.Type.f32, "x")
    x.output(0).get_tensor().set_names({"x"})
    return openvino.Model([ops.multiply(x, np.float32(factor))], [x], "scaled")


def mixing():
    """A model that is exact for one example, and takes the mean of a batch from others."""
    x = ops.parameter([-1, 4], openvino.Type.f32, "x")
    x.output(0).get_tensor().set_names({"x"})
    mean = ops.reduce_mean(x, np.array([0]), keep_dims=True)
    size = ops.convert(ops.gather(ops.shape_of(x), np.array([0]), np.array(0)), "f32")
    return openvino.Model([ops.add(x, ops.multiply(mean, ops.subtract(size, np.float32(1))))], [x], "mixing")


@pytest.mark.parametrize("batch", [-1, 1])
def test_the_closest_is_chosen(batch):
    """The smallest difference wins, in whatever order; also with a fixed batch size."""
    far, near = model(1.5, batch), model(1.01, batch)
    assert closest([far, near], model(1.0, batch), EXAMPLES) is near
    assert closest([near, far], model(1.0, batch), EXAMPLES) is near


def test_batches_count():
    """A model that is exact one by one and wrong in a batch is worse than one that is always a little off."""
    near = model(1.01)
    assert closest([mixing(), near], model(1.0), EXAMPLES) is near
