"""Every registered model as a parameter of tests, and its inputs, outputs and shapes."""

from __future__ import annotations

import numpy as np
import pytest

import zoo

# Sorted by size, so that pytest builds each model once for all tests. Models larger than the small variants take
# seconds each, minutes together: they are marked slow.
NAMES = sorted(zoo.list_models(), key=lambda name: zoo.spec(name).params)
# Small as well, but each is another size of a small variant.
ALIKE = ("deit_micro_tiny", "highway", "realmlp", "resnet20")
TINY = [name for name in NAMES if zoo.spec(name).params < 400_000 and name not in ALIKE]
# One of each kind of graph: without a hidden layer, dense, gated, plain and residual convolutions, and attention to an
# image, to a text, and to a text while another is written. Quick tests of what one function does to any graph take
# these; those of what each family writes itself take every small one.
GRAPHS = (
    "perceptron", "mlp_tiny", "highway_tiny", "cnn_tiny", "vgg_bn_tiny", "resnet_tiny", "vit_micro_tiny",
    "encoder_tiny", "transformer_tiny",
)  # fmt: skip


def marked(names, quick=None):
    """Names as parameters; all but those of `quick`, by default the small ones, are marked slow."""
    quick = TINY if quick is None else quick
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


every_name = pytest.mark.parametrize("name", NAMES)
every_name_in_time = pytest.mark.parametrize("name", marked(NAMES))
every_graph_in_time = pytest.mark.parametrize("name", marked(NAMES, GRAPHS))


def normal(shape):
    """Numbers around 0."""
    return np.random.default_rng(1).standard_normal(shape).astype("float32")


def tokens(spec, length, count):
    """Token ids, the last half of the last example padded."""
    ids = np.random.default_rng(length).integers(1, spec.vocabulary, (count, length)).astype("int32")
    ids[-1, -(length // 2) :] = 0
    return ids


def inputs(name, shape=None, count=2):
    """Inputs of the model `name`, `count` examples: preprocessed values or token ids, by name if several."""
    spec = zoo.spec(name)
    shape = shape or spec.input_shape
    if not spec.vocabulary:
        return normal((count, *shape))
    if len(spec.inputs) == 1:
        return tokens(spec, *shape, count)
    return {key: tokens(spec, length, count) for key, length in zip(spec.inputs, shape, strict=True)}


def predicted(name, classes=None, shape=None, count=2):
    """The shape of the logits."""
    spec = zoo.spec(name)
    length = (shape or spec.input_shape)[-1:] if spec.task in ("tag", "generate") else ()
    return (count, *length, spec.classes if classes is None else classes)


def outputs(model, values):
    """The model's outputs in inference, as an array."""
    return np.asarray(model(values))


def smallest(name):
    """The smallest input shape that the spec allows."""
    spec = zoo.spec(name)
    if len(spec.input_shape) < 3:
        return spec.input_shape
    return (spec.min_size, spec.min_size, spec.input_shape[-1])


def odd(name):
    """A shape of odd, unequal height and width and one channel, or odd numbers of features or tokens."""
    spec = zoo.spec(name)
    size = spec.min_size | 1
    return (size, size + 4, 1) if spec.inputs == ("image",) else (13, 11)[: len(spec.input_shape)]
