"""The specs of every registered model: published numbers, and what the built models count."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conformance_cases import NAMES, TINY, every_name, marked, predicted

import zoo
from zoo.build import Request, construct
from zoo.common.errors import BadOption
from zoo.counts import counts
from zoo.layers.lazy import layers
from zoo.specs.registry import models
from zoo.summary import summarize

# From the papers, torchvision, timm and Keras: none of these numbers was read off this code.
PUBLISHED = {
    "mlp_mnist": 109_386, "cnn": 225_034, "alexnet": 60_965_224, "alexnet_owt": 61_100_840,
    "vgg11": 132_863_336, "vgg13": 133_047_848, "vgg16": 138_357_544, "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840, "vgg13_bn": 133_053_736, "vgg16_bn": 138_365_992, "vgg19_bn": 143_678_248,
    "resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032, "resnet101": 44_549_160,
    "resnet152": 60_192_808, "resnet20": 269_722, "resnet32": 464_154, "resnet44": 658_586, "resnet56": 853_018,
    "resnet110": 1_727_962, "resnet50d": 25_576_264, "resnext50_32x4d": 25_028_904, "wide_resnet50_2": 68_883_240,
    "resnet50_v2": 25_568_360, "resnetv2_50": 25_549_352, "resnetv2_101": 44_541_480,
    "googlenet": 6_624_904, "inception_v3": 23_834_568,
    "densenet121": 7_978_856, "densenet161": 28_681_000, "densenet169": 14_149_480, "densenet201": 20_013_928,
    "mobilenet_v2": 3_504_872, "efficientnet_b0": 5_288_548, "convnext_tiny": 28_589_128,
}  # fmt: skip
AUXILIARY = {"googlenet": 13_004_888, "inception_v3": 27_161_264}
# GMACs as torchvision publishes them.
GMACS = {
    "alexnet_owt": 0.714, "vgg11": 7.609, "vgg13": 11.308, "vgg16": 15.47, "vgg19": 19.632,
    "resnet18": 1.814, "resnet34": 3.664, "resnet50": 4.089, "resnet101": 7.801, "resnet152": 11.514,
    "resnext50_32x4d": 4.23, "wide_resnet50_2": 11.398, "googlenet": 1.498, "inception_v3": 5.713,
    "densenet121": 2.834, "densenet161": 7.728, "densenet169": 3.36, "densenet201": 4.291,
    "mobilenet_v2": 0.301, "efficientnet_b0": 0.386, "convnext_tiny": 4.456,
}  # fmt: skip
SPEC_KEYS = {
    "name", "family", "params", "input_shape", "input_dtype", "classes", "min_size", "paper", "tags",
    "preprocessing", "unsupported", "weights", "vocabulary", "task",
}  # fmt: skip
# Those of some kinds that are quick to build.
QUICK_SIZES = ("vgg11", "resnet32", "encoder_mini")
image_name = pytest.mark.parametrize("name", [name for name in NAMES if zoo.spec(name).min_size])


def input_shapes(model):
    """The shape of each input by name."""
    return {tensor.name: tuple(tensor.shape) for tensor in model.inputs}


def test_published_parameters():
    """The specs have the published numbers."""
    assert {name: zoo.spec(name).params for name in PUBLISHED} == PUBLISHED


@pytest.mark.parametrize("name", marked(NAMES, (*TINY, *QUICK_SIZES)))
def test_spec_and_counts_match_the_model(name):
    """Parameters, shapes, dtype, names, GMACs, feature maps and stages match the built model."""
    spec = zoo.spec(name)
    with layers.skip_initialization():
        built, maps = construct(models[name], Request(), {})
    assert sum(int(np.prod(v.shape)) for v in built.trainable_variables) == spec.params
    lengths = [(length,) for length in spec.input_shape] if len(spec.inputs) > 1 else [spec.input_shape]
    assert input_shapes(built) == {key: (None, *n) for key, n in zip(spec.inputs, lengths, strict=True)}
    assert built.output_shape == predicted(name, count=None)
    assert {tensor.dtype for tensor in built.inputs} == {spec.input_dtype}
    last = "vector" if spec.task == "embed" else "logits"
    assert spec.task == "generate" or last in {layer.name for layer in built.layers[-3:]}
    assert spec.task != "generate" or spec.classes == spec.vocabulary
    summary = summarize(built, maps)
    assert summary == counts(name), "run `make docs-tables`"
    assert summary["gmacs"] == pytest.approx(GMACS.get(name, summary["gmacs"]), rel=0.01)
    assert bool(spec.feature_info) == bool(spec.min_size)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "params"), AUXILIARY.items())
def test_auxiliary_classifiers(name, params):
    """They add the published number of parameters, and outputs in training and inference."""
    with layers.skip_initialization():
        built = zoo.get(name, auxiliary=True)
    assert sum(int(np.prod(v.shape)) for v in built.trainable_variables) == params
    assert all(key == "logits" or key.startswith("auxiliary") for key in built.output)
    assert {tuple(output.shape) for output in built.output.values()} == {(None, 1000)}


def preprocessing(values):
    """A preprocessing config from its JSON."""
    return zoo.PreprocessingConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


@every_name
def test_spec_is_closed_and_json_safe(name):
    """A spec survives JSON, has exactly the keys of the schema and the values that a reader needs."""
    spec = zoo.spec(name)
    content = json.loads(json.dumps(spec.to_json(), allow_nan=False))
    assert content == spec.to_json()
    assert set(content) == SPEC_KEYS
    content |= {
        "weights": tuple(
            zoo.PublishedWeights(
                **{k: preprocessing(w) if k == "preprocessing" else w for k, w in v.items() if k != "megabytes"}
            )
            for v in content["weights"]
        ),
        "input_shape": tuple(content["input_shape"]),
        "tags": tuple(content["tags"]),
        "preprocessing": preprocessing(content["preprocessing"]),
        "unsupported": tuple(content["unsupported"].items()),
    }
    assert zoo.ModelSpec(**content) == spec
    assert spec.name == name
    assert spec.family in zoo.list_families()
    assert spec.paper
    assert spec.tags
    assert spec.task in ("classify", "embed", "tag", "generate")
    spec.preprocessing.check(spec.input_shape[-1])


@image_name
def test_smaller_than_smallest_is_refused(name):
    """One pixel less than the spec's smallest size is an error, in height and in width."""
    size = zoo.spec(name).min_size
    for shape in ((size - 1, size, 3), (size, size - 1, 3)):
        with pytest.raises(BadOption, match=f"at least {size}x{size} pixels. Received: input_shape="):
            zoo.get(name, input_shape=shape)
