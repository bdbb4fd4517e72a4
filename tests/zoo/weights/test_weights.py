"""Weights from elsewhere and from our own files: the outputs are the same, and what does not fit is refused whole."""

from __future__ import annotations

import functools
import gzip
import itertools
import json
import pickle
import runpy
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import zoo
from zoo.common.errors import BadOption
from zoo.layers.lazy import layers
from zoo.specs.registry import models
from zoo.weights.loading import load_state
from zoo.weights.sources import Source

HERE = Path(__file__).parent
TORCH_STATE = runpy.run_path(str(HERE / "torch_state.py"))
random_state, random_images = TORCH_STATE["random_state"], TORCH_STATE["random_images"]
# What torchvision and timm compute with a repeatable state; see record_torch.py.
REFERENCES = json.loads(gzip.decompress((HERE / "torch_references.json.gz").read_bytes()))
# One of each layout for `make test`; ResNet-18 comes for the controls anyway.
QUICK_TORCH = {
    f"{library}/{name}"
    for library, names in {
        "torchvision": "resnet18 googlenet mobilenet_v2",
        "timm": "resnext50_32x4d resnetv2_50 densenet121 inception_v3 efficientnet_b0 convnext_tiny "
        "vit_tiny_patch16_224 deit_small_distilled_patch16_224",
    }.items()
    for name in names.split()
}
# Where ours has another name than theirs.
OURS = {"torchvision/alexnet": "alexnet_owt", "timm/mobilenetv2_100": "mobilenet_v2"}
KERAS = {
    "VGG16": "vgg16",
    "VGG19": "vgg19",
    "ResNet50": "resnet50_v1",
    "ResNet101": "resnet101_v1",
    "ResNet152": "resnet152_v1",
    "ResNet50V2": "resnet50_v2",
    "ResNet101V2": "resnet101_v2",
    "ResNet152V2": "resnet152_v2",
    "InceptionV3": "inception_v3",
    "DenseNet121": "densenet121",
    "DenseNet169": "densenet169",
    "DenseNet201": "densenet201",
    "MobileNetV2": "mobilenet_v2",
    "EfficientNetB0": "efficientnet_b0",
    "ConvNeXtTiny": "convnext_tiny",
}
QUICK_KERAS = {"ResNet50", "InceptionV3", "MobileNetV2"}
# The dense layers of VGG take one size only.
SIZES = dict.fromkeys(("VGG16", "VGG19"), (224, 224)) | {"InceptionV3": (107, 91)}

TINY = [name for name in zoo.names("*_tiny") if zoo.spec(name).params < 1e6]
TINY_IMAGES = [name for name in TINY if len(zoo.spec(name).input_shape) == 3]
FILES = (".keras", ".weights.h5", ".safetensors")
every_file = pytest.mark.parametrize("kind", FILES)


def slow_unless(quick, *values):
    """A parameter set that only `make test-all` runs, unless it is quick."""
    return pytest.param(*values, id="-".join(values), marks=() if quick else pytest.mark.slow)


def every_tiny(names, kinds):
    """Parametrize by each small network and each kind of file; Keras' own are quick for a few networks only."""
    quick = {"cnn_tiny", "mlp_tiny", "resnet_tiny", "vgg_tiny"}
    both = itertools.product(names, kinds)
    return pytest.mark.parametrize(("name", "kind"), [slow_unless(k == kinds[-1] or n in quick, n, k) for n, k in both])


def error_of_parity(network, values, expected):
    """The largest difference, as a share of the largest expected number."""
    actual = np.asarray(network(values))[:, : expected.shape[1]]
    assert actual.shape == expected.shape
    return np.abs(actual - expected).max() / np.abs(expected).max()


def values_of(network):
    """All weights by layer and variable."""
    return {f"{layer.name}/{v.name}": np.array(v.numpy()) for layer in network.layers for v in layer.weights}


def assert_same(actual, expected):
    """Two sets of weights have the same keys and numbers."""
    assert actual.keys() == expected.keys()
    assert [key for key in actual if not np.array_equal(actual[key], expected[key])] == []


def randomize(network, seed=3):
    """Give each weight of a network numbers of a sensible size, statistics and scales among them."""
    import keras

    draw = np.random.default_rng(seed)
    for variable in network.weights:
        kind, shape = variable.path.rpartition("/")[2], tuple(variable.shape)
        if len(shape) > 1:
            # Kernels of depthwise convolutions end in (channels, 1).
            fan_in = np.prod(shape[:2] if len(shape) == 4 and shape[-1] == 1 else shape[:-1])
            variable.assign(draw.standard_normal(shape, "float32") * np.sqrt(2 / fan_in))
        elif "variance" in kind or kind.startswith(("gamma", "variable")):  # Keras' layer scales are just "variable".
            variable.assign(draw.uniform(0.5, 1.5, shape))
        elif "count" not in kind:
            variable.assign(draw.uniform(-0.1, 0.1, shape))
    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    return network


@functools.cache
def made(name, **options):
    """A network whose weights are all random; one for all tests, which leave it alone."""
    return randomize(zoo.get(name, **options))


def saved(network, kind, folder):
    """Save a network as a kind of file and return the path; the kind "network" is the network itself."""
    if kind == "network":
        return network
    path = folder / f"{network.name}{kind}"
    if kind == ".safetensors":
        zoo.save_weights(network, path)
    elif kind == ".keras":
        network.save(path)
    else:
        network.save_weights(path)
    return path


def inputs_for(network):
    """Two examples: values, or token ids below 10, which every vocabulary has; by name where there are several."""
    draw = np.random.default_rng(1)
    given = {
        x.name: draw.integers(1, 10, (2, *x.shape[1:])).astype("int32")
        if x.dtype == "int32"
        else draw.standard_normal((2, *x.shape[1:])).astype("float32")
        for x in network.inputs
    }
    return given if len(given) > 1 else given.popitem()[1]


def refusal(name, weights, **options):
    """The message of the error that `zoo.get` raises: one line that says what was received."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(BadOption) as error:
            zoo.get(name, weights=weights, **options)
    return one_line(error.value)


def one_line(error):
    """The message of a BadOption, which `zoo` prints as one line before it exits with 2."""
    text = str(error)
    assert "Received: " in text
    assert "\n" not in text
    assert len(text) < 1000
    assert error.code == 2
    return text


def torch_state_of(model_id):
    """The state dict that a reference was recorded with."""
    reference = REFERENCES[model_id]
    return random_state({key: tuple(shape) for key, shape in reference["keys"].items()}, reference["variance"])


@pytest.fixture(scope="module")
def resnet18_state():
    """The state of torchvision's ResNet-18; tests take copies."""
    return torch_state_of("torchvision/resnet18")


def torch_parity(model_id, state, folder):
    """How far our logits are from the recorded ones when the state comes from a safetensors file."""
    reference, path = REFERENCES[model_id], folder / "state.safetensors"
    height, width = reference["size"]
    save_file(state, path)
    try:
        network = zoo.get(OURS.get(model_id, model_id.partition("/")[2]), input_shape=(height, width, 3), weights=path)
    finally:
        path.unlink()  # up to half a gigabyte, which pytest would keep
    return error_of_parity(network, random_images(height, width), np.array(reference["logits"]))


@pytest.mark.parametrize("model_id", [slow_unless(i in QUICK_TORCH, i) for i in REFERENCES])
def test_torch_weights_give_the_logits_of_torch(model_id, tmp_path):
    """A state dict of torchvision or timm, saved as safetensors, gives their logits."""
    assert torch_parity(model_id, torch_state_of(model_id), tmp_path) < 1e-4


def nudged(state):
    state["conv1.weight"][5, 1, 3, 3] += 1.0


def kernels_swapped(state):
    first, second = "layer2.0.conv2.weight", "layer2.1.conv1.weight"
    state[first], state[second] = state[second], state[first]


def averages_swapped(state):
    first, second = "layer4.0.bn1.running_mean", "layer4.0.bn1.bias"
    state[first], state[second] = state[second], state[first]


def kernel_turned(state):
    state["layer4.1.conv1.weight"] = np.ascontiguousarray(state["layer4.1.conv1.weight"].swapaxes(0, 1))


@pytest.mark.parametrize("change", [nudged, kernels_swapped, averages_swapped, kernel_turned])
def test_torch_parity_can_fail(change, resnet18_state, tmp_path):
    """The control: one number of a kernel, or two tensors of one shape, in the wrong place are seen in the logits."""
    state = {key: array.copy() for key, array in resnet18_state.items()}
    change(state)
    assert torch_parity("torchvision/resnet18", state, tmp_path) > 1e-3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_torch_weights_of_other_floats(dtype, resnet18_state, tmp_path):
    """A state in another float becomes float32, number by number."""
    import ml_dtypes

    other = np.dtype(getattr(ml_dtypes, dtype, dtype))
    state = {key: array.astype(other) for key, array in resnet18_state.items()}
    save_file(state, tmp_path / "state.safetensors")
    network = zoo.get("resnet18", input_shape=(32, 32, 3), weights=tmp_path / "state.safetensors")
    assert np.array_equal(network.get_layer("logits").bias.numpy(), state["fc.bias"].astype("float32"))
    kernel = state["layer1.0.conv1.weight"].astype("float32").transpose(2, 3, 1, 0)
    assert np.array_equal(network.get_layer("stage1_block1_conv1").kernel.numpy(), kernel)


UNDER_JAX = """
import sys
import numpy as np
import zoo
path, images, expected = sys.argv[1:]
images, expected = np.load(images), np.load(expected)
network = zoo.get("resnet18", input_shape=images.shape[1:], weights=path)
difference = np.abs(np.asarray(network(images))[:, : expected.shape[1]] - expected).max()
print(difference / np.abs(expected).max(), "tensorflow" in sys.modules)
"""


@pytest.mark.slow
def test_torch_weights_under_jax(resnet18_state, tmp_path, python):
    """On another backend of Keras the same file gives the same logits, without TensorFlow."""
    reference = REFERENCES["torchvision/resnet18"]
    save_file(resnet18_state, tmp_path / "state.safetensors")
    np.save(tmp_path / "images.npy", random_images(*reference["size"]))
    np.save(tmp_path / "logits.npy", np.array(reference["logits"]))
    files = [tmp_path / name for name in ("state.safetensors", "images.npy", "logits.npy")]
    out, err = python("-c", UNDER_JAX, *files, env={"KERAS_BACKEND": "jax"}).communicate(timeout=120)
    assert out, err
    difference, with_tensorflow = out.split()[-2:]
    assert float(difference) < 1e-4
    assert with_tensorflow == "False"


def keras_application(name):
    """A network of keras.applications with random weights and statistics, giving logits."""
    import keras

    # Automatic names then do not start from "conv2d", as in a session that has made other networks.
    keras.layers.Conv2D(1, 1), keras.layers.Dense(1), keras.layers.BatchNormalization()
    shape = (*SIZES.get(name, (96, 83)), 3)
    application = getattr(keras.applications, name)
    return randomize(application(weights=None, input_shape=shape, classifier_activation=None))


@pytest.mark.parametrize("application", [slow_unless(name in QUICK_KERAS, name) for name in KERAS])
def test_keras_applications_give_their_logits(application):
    """A network of keras.applications, given as it is, gives its logits on the same raw input."""
    theirs = keras_application(application)
    ours = zoo.get(KERAS[application], input_shape=theirs.input_shape[1:], weights=theirs)
    values = inputs_for(theirs) * 50
    assert error_of_parity(ours, values, np.asarray(theirs(values))) < 1e-4


def test_keras_applications_from_a_file(tmp_path):
    """The `.keras` file of such a network is as good; a statistic more or less is seen."""
    theirs = keras_application("MobileNetV2")
    theirs.save(tmp_path / "theirs.keras")
    ours = zoo.get("mobilenet_v2", input_shape=theirs.input_shape[1:], weights=tmp_path / "theirs.keras")
    values = inputs_for(theirs)
    expected = np.asarray(theirs(values))
    assert error_of_parity(ours, values, expected) < 1e-4
    average = ours.get_layer("stage3_block1_depthwise_norm").moving_mean
    average.assign(average + 0.5)
    assert error_of_parity(ours, values, expected) > 1e-3


@every_tiny(TINY, ["network", *FILES])
def test_round_trip(name, kind, tmp_path):
    """Every weight comes back as it was, and with them the outputs."""
    network = made(name)
    again = zoo.get(name, weights=saved(network, kind, tmp_path))
    assert_same(values_of(again), values_of(network))
    values = inputs_for(network)
    assert error_of_parity(again, values, np.asarray(network(values))) < 1e-6


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16", "float16", "float64"])
def test_round_trip_in_other_precisions(dtype, tmp_path):
    """A network in another precision comes back as it was."""
    network = randomize(zoo.get("resnet_tiny", dtype=dtype))
    again = zoo.get("resnet_tiny", dtype=dtype, weights=saved(network, ".safetensors", tmp_path))
    assert_same(values_of(again), values_of(network))


def test_save_weights_wants_safetensors(tmp_path):
    """Another ending is refused, and nothing is left behind; a written file says what it is."""
    with pytest.raises(BadOption, match=r"must end in \.safetensors") as error:
        zoo.save_weights(made("mlp_tiny"), tmp_path / "weights.h5")
    one_line(error.value)
    assert list(tmp_path.iterdir()) == []
    zoo.save_weights(made("mlp_tiny"), str(tmp_path / "weights.safetensors"))
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]
    assert_same(load_file(tmp_path / "weights.safetensors"), values_of(made("mlp_tiny")))


def expected_kernel(kernel, channels):
    """The kernel (h, w, 3, filters) of a first convolution for 1 or 5 channels."""
    if channels == 1:
        return kernel[:, :, :1] + kernel[:, :, 1:2] + kernel[:, :, 2:]
    return kernel[:, :, [0, 1, 2, 0, 1]] * (3 / 5)


@pytest.mark.parametrize("channels", [1, 5])
@every_tiny(TINY_IMAGES, FILES)
def test_other_channels(name, kind, channels, tmp_path):
    """The first kernel is summed for one channel and tiled for five; the rest is as in the file."""
    full, shape = made(name), zoo.spec(name).input_shape
    network = zoo.get(name, input_shape=(*shape[:2], channels), weights=saved(full, kind, tmp_path))
    expected, actual = values_of(full), values_of(network)
    (first,) = [key for key in expected if actual[key].shape != expected[key].shape]
    np.testing.assert_allclose(actual.pop(first), expected_kernel(expected.pop(first), channels), rtol=1e-6, atol=1e-7)
    assert_same(actual, expected)
    if channels == 1:
        gray = inputs_for(network)
        assert error_of_parity(network, gray, np.asarray(full(np.repeat(gray, 3, axis=3)))) < 1e-4


def test_one_channel_becomes_three(tmp_path):
    """The weights of a network for gray images answer a gray image in three channels as before."""
    gray_one = made("resnet_tiny", input_shape=(32, 32, 1))
    network = zoo.get("resnet_tiny", weights=saved(gray_one, ".safetensors", tmp_path))
    gray = inputs_for(gray_one)
    assert error_of_parity(network, np.repeat(gray, 3, axis=3), np.asarray(gray_one(gray))) < 1e-5


@pytest.mark.parametrize("options", [{"classes": 0}, {"include_top": False}], ids=["features", "map"])
@every_tiny(TINY, FILES)
def test_without_the_top(name, kind, options, tmp_path):
    """A file of the whole network gives its features and its feature map."""
    import keras

    full = made(name)
    part = zoo.get(name, weights=saved(full, kind, tmp_path), **options)
    expected = values_of(full)
    assert_same(values_of(part), {key: expected[key] for key in values_of(part)})
    values = inputs_for(full)
    np.testing.assert_allclose(part(values), keras.Model(full.input, inside(full, part))(values), rtol=1e-5, atol=1e-5)


def inside(full, part):
    """What a part of a network puts out, in the whole one: a layer's output, or what one beside it makes of some."""
    import keras

    layer = part.outputs[0]._keras_history.operation
    if layer.name in {one.name for one in full.layers}:
        return full.get_layer(layer.name).output
    names = keras.tree.map_structure(lambda x: x._keras_history.operation.name, layer.input)
    return layer(keras.tree.map_structure(lambda name: full.get_layer(name).output, names))


@pytest.mark.filterwarnings("error::UserWarning")
def test_features_take_weights(tmp_path):
    """`zoo.features` gives the maps of the trained network, without a warning."""
    import keras

    full = made("resnet_tiny")
    maps = zoo.features("resnet_tiny", weights=saved(full, ".safetensors", tmp_path))
    ends = [full.get_layer(output._keras_history.operation.name).output for output in maps.outputs]
    values = inputs_for(full)
    for actual, expected in zip(maps(values), keras.Model(full.input, ends)(values), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


HEADS = {"species": 5, "age": zoo.Regression()}


def assert_fresh(layer):
    """A head is as Keras starts it: a kernel drawn at random, and no bias."""
    kernel = layer.kernel.numpy()
    assert len(np.unique(kernel)) > kernel.size / 2
    assert np.abs(kernel).max() < 3
    assert not np.any(layer.bias.numpy())


def assert_trunk(network, expected, heads):
    """All but the heads are as expected, and the heads are fresh."""
    trunk = {key: array for key, array in values_of(network).items() if key.partition("/")[0] not in heads}
    assert len(trunk) == len(network.weights) - 2 * len(heads)
    assert_same(trunk, {key: expected[key] for key in trunk})
    for head in heads:
        assert_fresh(network.get_layer(head))


@pytest.mark.parametrize("kind", [*FILES, "network"])
@pytest.mark.parametrize("classes", [0, None], ids=["trunk", "whole"])
@pytest.mark.parametrize("name", ["resnet_tiny", "vgg_tiny", "mlp_tiny"])
def test_new_heads(name, classes, kind, tmp_path):
    """New heads over a trunk, or over a network that had one of its own, start at random."""
    source = made(name, classes=classes)
    network = zoo.get(name, heads=HEADS, weights=saved(source, kind, tmp_path))
    assert_trunk(network, values_of(source), ("species_logits", "age_logits"))


@every_file
def test_heads_by_name(kind, tmp_path):
    """Heads of one size asked for in another order get their own weights."""
    source = randomize(zoo.get("mlp_tiny", heads={"species": 4, "genus": 4}))
    network = zoo.get("mlp_tiny", heads={"genus": 4, "species": 4}, weights=saved(source, kind, tmp_path))
    assert_same(values_of(network), values_of(source))


@pytest.fixture
def home(tmp_path, monkeypatch, resnet18_state):
    """A folder of weights put there by hand, with one file, which the name "imagenet" of ResNet-18 stands for too."""
    name = zoo.spec("resnet18").weights[0].source
    path = tmp_path / "home" / f"{name}.safetensors"
    path.parent.mkdir(parents=True)
    save_file(resnet18_state, path)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    return name


@pytest.mark.parametrize("by_name", [True, False], ids=["name", "imagenet"])
def test_named_weights(by_name, home):
    """A name gives the file of that name, whole."""
    reference = REFERENCES["torchvision/resnet18"]
    network = zoo.get("resnet18", input_shape=(*reference["size"], 3), weights=home if by_name else "imagenet")
    assert error_of_parity(network, random_images(*reference["size"]), np.array(reference["logits"])) < 1e-4


@pytest.mark.parametrize(
    ("options", "heads"),
    [({"classes": 10}, ["logits"]), ({"heads": HEADS}, ["species_logits", "age_logits"]), ({"classes": 0}, [])],
    ids=["classes", "heads", "features"],
)
def test_named_weights_leave_another_head_random(options, heads, home):
    """With a name, a head of another size starts at random over the trained trunk."""
    expected = values_of(zoo.get("resnet18", input_shape=(32, 32, 3), weights="imagenet"))
    network = zoo.get("resnet18", input_shape=(32, 32, 3), weights="imagenet", **options)
    assert_trunk(network, expected, heads)


BAD_NAMES = [
    ("mlp_tiny", "imagenet", "None are published"),
    ("resnet_tiny", "keras", "None are published"),
    ("resnet18", "keras", "resnet18 has no such weights"),
    ("resnet18", "torchvision/ResNet18_Weights.IMAGENET1K_V1", "resnet18 has no such weights"),
    ("resnet50_v1", "keras/ResNet101", "Did you mean 'keras/ResNet50'?"),
    ("alexnet_owt", "torchvision/AlexNet_Weights.IMAGENET1K_V1", "pickle only"),
    ("alexnet_owt", "imagenet", "pickle only"),
    ("resnet_tiny", "timm/resnet18.a1_in1k", "resnet_tiny has no such weights"),
    ("mlp", "timm/mlp.in1k", "mlp has no such weights"),
]


@pytest.mark.parametrize(("name", "weights", "hint"), BAD_NAMES)
def test_names_that_are_refused(name, weights, hint):
    """A name that the model has no weights of is refused without looking for them."""
    message = refusal(name, weights)
    assert hint in message
    assert f"Received: weights={weights!r}" in message


def with_key(key, array):
    return lambda arrays: arrays | {key: array}


def without(key):
    return lambda arrays: {k: array for k, array in arrays.items() if k != key}


def transposed(key):
    return lambda arrays: arrays | {key: np.ascontiguousarray(arrays[key].T)}


def renamed(key, new):
    return lambda arrays: {new if k == key else k: array for k, array in arrays.items()}


KERNEL = "stage2_block1_conv1/kernel"  # (3, 3, 8, 16)
# (change to a file of resnet_tiny, options of zoo.get, what the message names)
BROKEN = {
    "no kernel": (without(KERNEL), {}, f"1 missing there: {KERNEL}"),
    "no kernel of the first": (without("stem/kernel"), {}, "1 missing there: stem/kernel"),
    "no head": (without("logits/kernel"), {}, "1 missing there: logits/kernel"),
    "no bias": (without("logits/bias"), {}, "1 missing there: logits/bias"),
    "no scale": (without("stem_norm/gamma"), {}, "1 missing there: stem_norm/gamma"),
    "no offset": (without("stem_norm/beta"), {}, "1 missing there: stem_norm/beta"),
    "no mean": (without("stem_norm/moving_mean"), {}, "1 missing there: stem_norm/moving_mean"),
    "no variance": (without("stem_norm/moving_variance"), {}, "1 missing there: stem_norm/moving_variance"),
    "no trunk's kernel for features": (without(KERNEL), {"classes": 0}, f"1 missing there: {KERNEL}"),
    "no trunk's kernel for heads": (without(KERNEL), {"heads": 5}, f"1 missing there: {KERNEL}"),
    "another layer": (with_key("other/kernel", np.ones(3)), {}, "1 not expected here: other/kernel"),
    "another variable": (with_key("stem/other", np.ones(3)), {}, "1 not expected here: stem/other"),
    "another layer beside features": (with_key("other/x", np.ones(3)), {"classes": 0}, "not expected here: other/x"),
    "another variable beside features": (
        with_key("stem/other", np.ones(3)),
        {"classes": 0},
        "not expected here: stem/other",
    ),
    "another name": (renamed(KERNEL, "conv/kernel"), {}, f"1 missing there: {KERNEL}; 1 not expected here: conv/k"),
    "wrong layout": (transposed(KERNEL), {}, f"{KERNEL} is (16, 8, 3, 3) there, {KERNEL} is (3, 3, 8, 16) here"),
    "wrong layout of the first": (transposed("stem/kernel"), {}, "stem/kernel is (8, 3, 3, 3) there"),
    "wrong layout of the head": (transposed("logits/kernel"), {}, "logits/kernel is (10, 32) there"),
    "another size": (with_key("stem_norm/beta", np.ones(9)), {}, "1 of another shape: stem_norm/beta is (9,) there"),
    "no axes": (with_key("stem_norm/beta", np.ones(())), {}, "stem_norm/beta is () there"),
    "another class count": (lambda arrays: arrays, {"classes": 7}, "logits/kernel is (32, 10) there"),
    "everything missing": (lambda _: {}, {}, "missing there"),
}  # fmt: skip
every_break = pytest.mark.parametrize(("change", "options", "hint"), BROKEN.values(), ids=BROKEN)


def broken_arrays(change):
    """The weights of resnet_tiny with a fault."""
    return {k: np.asarray(array, "float32") for k, array in change(values_of(made("resnet_tiny"))).items()}


@every_break
def test_file_with_a_fault_is_refused(change, options, hint, tmp_path):
    """The message names what differs, and the file."""
    path = tmp_path / "broken.safetensors"
    save_file(broken_arrays(change), path, metadata={"format": "keras-zoo"})
    message = refusal("resnet_tiny", path, **options)
    assert hint in message
    assert f"Received: weights={str(path)!r}" in message


@every_break
def test_nothing_is_loaded_by_halves(change, options, hint):
    """A network keeps all its numbers when one does not fit."""
    options = {name: 0 if value is None else value for name, value in options.items()}
    network = randomize(zoo.get("resnet_tiny", **options), seed=4)
    before = values_of(network)
    with pytest.raises(BadOption) as error:
        load_state(network, Source("weights='x'", broken_arrays(change)), lambda: made("resnet_tiny"))
    assert hint in one_line(error.value)
    assert_same(values_of(network), before)


def test_whole_state_is_loaded():
    """The control: without a fault every number changes hands."""
    network = randomize(zoo.get("resnet_tiny"), seed=4)
    load_state(network, Source("weights='x'", broken_arrays(lambda arrays: arrays)), lambda: made("resnet_tiny"))
    assert_same(values_of(network), values_of(made("resnet_tiny")))


def test_bias_before_a_norm_is_folded(tmp_path):
    """What a convolution adds before a norm, the norm's average takes away again."""
    arrays = values_of(made("resnet_tiny")) | {"stage2_block1_conv1/bias": np.linspace(-1, 1, 16, dtype="float32")}
    save_file(arrays, tmp_path / "biased.safetensors", metadata={"format": "keras-zoo"})
    actual = values_of(zoo.get("resnet_tiny", weights=tmp_path / "biased.safetensors"))
    mean = "stage2_block1_conv1_norm/moving_mean"
    arrays[mean] = arrays[mean] - arrays.pop("stage2_block1_conv1/bias")
    assert_same(actual, arrays)


@pytest.mark.parametrize("options", [{}, {"classes": 0}, {"heads": HEADS}], ids=["whole", "features", "heads"])
def test_bias_without_a_norm_is_refused(options, tmp_path):
    """A bias that has no place in ours is not dropped."""
    arrays = values_of(made("resnetv2_tiny")) | {"stage1_block1_conv3/bias": np.ones(32, "float32")}
    save_file(arrays, tmp_path / "biased.safetensors", metadata={"format": "keras-zoo"})
    hint = "1 not expected here: stage1_block1_conv3/bias"
    assert hint in refusal("resnetv2_tiny", tmp_path / "biased.safetensors", **options)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_blue_first_is_turned_round(channels):
    """Weights that expect blue first get a first kernel that takes red first, whatever the number of channels."""
    network, expected = zoo.get("vgg_tiny", input_shape=(32, 32, channels)), values_of(made("vgg_tiny"))
    load_state(network, Source("weights='x'", expected, bgr=True), functools.partial(made, "vgg_tiny"))
    actual, first = values_of(network), "stage1_conv1/kernel"
    turned = expected.pop(first)[:, :, ::-1]
    wanted = turned if channels == 3 else expected_kernel(turned, channels)
    np.testing.assert_allclose(actual.pop(first), wanted, rtol=1e-6, atol=1e-7)
    assert_same(actual, expected)


TORCH_KERNEL = "layer2.0.conv1.weight"  # (128, 64, 3, 3)
BROKEN_TORCH = {
    "no kernel": (without(TORCH_KERNEL), f"1 missing there: {TORCH_KERNEL}"),
    "no scale": (without("layer1.0.bn1.weight"), "1 missing there: layer1.0.bn1.weight"),
    "no mean": (without("layer1.0.bn1.running_mean"), "1 missing there: layer1.0.bn1.running_mean"),
    "another layer": (with_key("layer9.conv.weight", np.ones(3)), "1 not expected here: layer9.conv.weight"),
    "wrong layout": (transposed(TORCH_KERNEL), "stage2_block1_conv1/kernel is (3, 3, 64, 128) here"),
    "another class count": (with_key("fc.bias", np.ones(10)), "1 of another shape: fc.bias is (10,) there"),
}


@pytest.fixture(scope="module")
def resnet18():
    """A ResNet-18 that no test changes."""
    return made("resnet18", input_shape=(32, 32, 3))


@pytest.mark.parametrize(("change", "hint"), BROKEN_TORCH.values(), ids=BROKEN_TORCH)
def test_torch_state_with_a_fault_is_refused(change, hint, resnet18, resnet18_state):
    """The message names what differs as PyTorch does, and nothing is loaded."""
    before = values_of(resnet18)
    source = Source(
        "weights='x'", change(resnet18_state), models["resnet18"].name_mappings["torchvision"], library="torch"
    )
    with pytest.raises(BadOption) as error:
        load_state(resnet18, source, lambda: resnet18)
    assert hint in one_line(error.value)
    assert_same(values_of(resnet18), before)


def test_torch_file_of_another_network_is_refused(resnet18_state, tmp_path):
    """Another architecture, another head, or a family that PyTorch's libraries do not have."""
    path = tmp_path / "state.safetensors"
    save_file(resnet18_state, path)
    assert "layer1.2.conv1.weight" in refusal("resnet34", path, input_shape=(32, 32, 3))
    assert "missing there" in refusal("mobilenet_v2", path, input_shape=(32, 32, 3))
    assert "fc.weight is (1000, 512) there" in refusal("resnet18", path, input_shape=(32, 32, 3), classes=10)
    assert "no files of timm or torchvision" in refusal("resnet_tiny", path)


OTHERS = [
    ("vgg_tiny", {}, "resnet_tiny"),
    ("resnet_tiny", {}, "vgg_tiny"),
    ("vgg_tiny", {}, "vgg_bn_tiny"),
    ("mlp_tiny", {"widths": (32, 32)}, "mlp_tiny"),
    ("resnet_tiny", {"width": 4}, "resnet_tiny"),
    ("resnet_tiny", {"classes": 7}, "resnet_tiny"),
]


@pytest.mark.parametrize("kind", [*FILES, "network"])
@pytest.mark.parametrize(("source", "options", "name"), OTHERS, ids=[f"{s}{o}-{n}" for s, o, n in OTHERS])
def test_another_network_is_refused(source, options, name, kind, tmp_path):
    """Whatever it is given as, a network of other layers or sizes is one line."""
    weights = saved(zoo.get(source, **options), kind, tmp_path)
    message = refusal(name, weights)
    assert f"weights must fit {name}. Received: weights=" in message
    assert (f"<{source}>" if kind == "network" else str(weights)) in message


@pytest.mark.parametrize("name", TINY)
def test_features_are_no_new_head(name):
    """The last layer of a network without classes is not one that could start afresh."""
    network = zoo.get(name, classes=0, dropout=0.0)
    arrays = values_of(network)
    last = [key for key in arrays if key.endswith("/kernel")][-1]
    for change, hint in ((without(last), "1 missing there"), (with_key(last, np.ones((2, 2))), "1 of another shape")):
        with pytest.raises(BadOption) as error:
            load_state(network, Source("weights='x'", change(arrays)), functools.partial(made, name))
        assert f"{hint}: {last}" in one_line(error.value)
    assert_same(values_of(network), arrays)


def test_heads_of_another_size_are_refused(tmp_path):
    """A file that has the head by name, but in another size, is no file to start afresh from."""
    path = saved(zoo.get("mlp_tiny", heads={"species": 7}), ".safetensors", tmp_path)
    assert "species_logits/kernel" in refusal("mlp_tiny", path, heads={"species": 5})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of mlp_tiny, and such that are none; each by its name."""
    folder, draw = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    network = made("mlp_tiny")
    for kind in FILES:
        content = saved(network, kind, folder).read_bytes()
        for name, part in {"start": content[:7], "half": content[: len(content) // 2], "end": content[:-1]}.items():
            (folder / f"truncated-{name}{kind}").write_bytes(part)
        (folder / f"random{kind}").write_bytes(draw.bytes(5000))
        (folder / f"text{kind}").write_text("These are no weights.\n")
        (folder / f"empty{kind}").write_bytes(b"")
        (folder / f"folder{kind}").mkdir()
    (folder / "weights.bin").write_bytes(content)
    (folder / "weights").write_bytes(content)
    (folder / "weights.safetensors.txt").write_bytes(content)
    return folder


NOT_READABLE = [
    f"{what}{kind}"
    for kind in FILES
    for what in ("truncated-start", "truncated-half", "truncated-end", "random", "text", "empty", "folder", "missing")
] + ["weights.bin", "weights", "weights.safetensors.txt", "missing.pth", "", "no/such/folder.keras"]


@pytest.mark.parametrize("file", NOT_READABLE)
def test_unreadable_file_is_refused(file, files):
    """What is damaged, missing, a folder or of another kind is one line with the path."""
    assert f"Received: weights={str(files / file)!r}" in refusal("mlp_tiny", str(files / file))


@every_file
def test_damaged_file_is_refused_or_the_same(kind, files, tmp_path):
    """One byte changed anywhere ends in weights or in one line, never in another error."""
    content = (files / f"mlp_tiny{kind}").read_bytes()
    path = tmp_path / f"damaged{kind}"
    refused = 0
    for position in {*range(0, 400, 29), *np.linspace(0, len(content) - 1, 40).astype(int)}:
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            zoo.get("mlp_tiny", weights=path)
        except BadOption as error:
            refused += bool(one_line(error))
    assert refused > 0


class Touch:
    """Something whose unpickling leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pkl", *FILES])
@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "zipped"])
def test_pickle_is_refused_unopened(suffix, zipped, tmp_path):
    """A pickle, plain or in a zip file as PyTorch writes it, is refused under any name and not executed."""
    content, path = pickle.dumps(Touch(tmp_path / "executed")), tmp_path / f"weights{suffix}"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", content)
    else:
        path.write_bytes(content)
    assert str(path) in refusal("mlp_tiny", path)
    assert not (tmp_path / "executed").exists()
    pickle.loads(content)  # the control
    assert (tmp_path / "executed").exists()


def test_code_in_a_file_is_refused_unexecuted(tmp_path, monkeypatch):
    """A `.keras` file with a Lambda layer is refused, and its function does not run."""
    import keras

    ran = tmp_path / "executed"
    monkeypatch.setenv("ZOO_TEST_FILE", str(ran))
    inputs = keras.Input((4,))
    code = keras.layers.Lambda(lambda x: (open(__import__("os").environ["ZOO_TEST_FILE"], "w").close(), x)[1])
    keras.Model(inputs, code(inputs)).save(tmp_path / "code.keras")
    ran.unlink()
    assert str(tmp_path / "code.keras") in refusal("mlp_tiny", tmp_path / "code.keras")
    assert not ran.exists()
    keras.saving.load_model(tmp_path / "code.keras", safe_mode=False)  # the control
    assert ran.exists()


def test_file_of_a_layer_is_refused(tmp_path):
    """A `.keras` file may hold a layer instead of a network."""
    import keras

    layer = keras.layers.Dense(3)
    layer.build((None, 4))
    keras.saving.save_model(layer, tmp_path / "layer.keras")
    assert str(tmp_path / "layer.keras") in refusal("mlp_tiny", tmp_path / "layer.keras")


CALLS_SYSTEM = {"module": "os", "class_name": "system", "config": {"command": "touch executed"}, "registered_name": ""}


@pytest.mark.parametrize("config", ["{}", "[]", "null", "{", "\0", json.dumps(CALLS_SYSTEM)])
def test_keras_file_of_another_configuration_is_refused(config, tmp_path, monkeypatch):
    """A `.keras` file whose configuration is no network's is one line, and calls nothing."""
    monkeypatch.chdir(tmp_path)
    made("mlp_tiny").save_weights(tmp_path / "model.weights.h5")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("config.json", config)
        archive.writestr("metadata.json", "{}")
        archive.write("model.weights.h5")
    assert str(tmp_path / "other.keras") in refusal("mlp_tiny", tmp_path / "other.keras")
    assert not (tmp_path / "executed").exists()


def test_name_too_long_for_a_file_is_refused():
    """A path that no file system can have is one line as well."""
    assert "an existing file" in refusal("mlp_tiny", "a" * 300 + ".keras")


def no_weights():
    """Values that are neither path, name nor network."""
    import keras

    return [3, True, 1.5, b"imagenet", [], {}, ("imagenet",), np.ones(3), keras.layers.Dense(1), keras.Model, object()]


@pytest.mark.parametrize("number", range(11))
def test_value_that_is_no_weights(number):
    """Anything but a path, a name or a network is refused by what may be given."""
    assert "a path, a name or a keras.Model" in refusal("mlp_tiny", no_weights()[number])


def test_network_of_nothing_is_refused():
    """An empty or unbuilt Sequential fits nothing."""
    import keras

    for network in (keras.Sequential(), keras.Sequential([keras.layers.Dense(3)])):
        assert "missing there" in refusal("mlp_tiny", network)


def test_files_of_a_twin_are_refused(tmp_path):
    """Names and shapes of resnet50_v1 are those of resnet50; only what a file says it was made for tells them apart."""
    with layers.weights_follow():
        zoo.save_weights(zoo.get("resnet50_v1"), tmp_path / "v1.safetensors")
    with pytest.raises(BadOption, match=r"weights must fit resnet50\. .*made for resnet50_v1"):
        zoo.get("resnet50", weights=tmp_path / "v1.safetensors")


def test_file_whose_path_looks_like_a_name(tmp_path, monkeypatch):
    """An existing file is a file, whatever its folder is called."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "timm").mkdir()
    network = zoo.get("resnet_tiny")
    zoo.save_weights(network, "timm/own.safetensors")
    assert_same(values_of(zoo.get("resnet_tiny", weights="timm/own.safetensors")), values_of(network))


def test_weights_are_saved_into_a_folder_that_is_there(tmp_path):
    """A missing folder or another ending is one line, and nothing is written."""
    for path in (tmp_path / "none" / "x.safetensors", tmp_path / "x.npz"):
        with pytest.raises(BadOption, match="path must"):
            zoo.save_weights(zoo.get("resnet_tiny"), path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers_are_loaded(name, tmp_path):
    """With auxiliary=True their weights are taken too, and the logits stay the same."""
    reference, state = REFERENCES[f"torchvision/{name}"], torch_state_of(f"torchvision/{name}")
    save_file(state, tmp_path / "state.safetensors")
    weights = tmp_path / "state.safetensors"
    network = zoo.get(name, input_shape=(*reference["size"], 3), auxiliary=True, weights=weights)
    logits = np.asarray(network(random_images(*reference["size"]))["logits"])[:, :16]
    assert np.abs(logits - reference["logits"]).max() <= 1e-4 * reference["logits_max"]
    taken = [v.numpy() for v in network.weights if v.path.startswith("auxiliary") and v.path.endswith("bias")]
    theirs = [v for k, v in state.items() if k.lower().startswith("aux") and k.endswith("fc.bias")]
    theirs = theirs or [v for k, v in state.items() if k.startswith("aux") and k.endswith("fc2.bias")]
    assert theirs
    assert all(any(np.array_equal(value, bias) for bias in taken if bias.shape == value.shape) for value in theirs)


@pytest.mark.parametrize(("name", "theirs", "hint"), [("resnet50", "ResNet50", "Did you mean 'resnet50_v1'")])
def test_variant_of_keras_is_named(name, theirs, hint):
    """A network of keras.applications that is built otherwise names the variant that takes it."""
    import keras

    with pytest.raises(BadOption, match=hint):
        zoo.get(name, weights=getattr(keras.applications, theirs)(weights=None, input_shape=(32, 32, 3)))
