"""Conformance of every registered model: one suite over all names."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

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


# The smallest model of each family at its published size.
FULL_SIZE = {zoo.spec(name).family: name for name in reversed(NAMES) if zoo.spec(name).params >= 400_000}.values()
# Those of some kinds that are quick to build.
QUICK_SIZES = ("vgg11", "resnet32", "encoder_mini")
every_model = pytest.mark.parametrize("model", marked(NAMES), indirect=True)
every_name = pytest.mark.parametrize("name", NAMES)
every_name_in_time = pytest.mark.parametrize("name", marked(NAMES))
every_graph_in_time = pytest.mark.parametrize("name", marked(NAMES, GRAPHS))
# Gradients of the largest, with a third of a billion parameters, take more memory than the tests may.
IN_MEMORY = [name for name in NAMES if zoo.spec(name).params < 320_000_000]
every_name_in_memory = pytest.mark.parametrize("name", marked(IN_MEMORY, GRAPHS))
image_name = pytest.mark.parametrize("name", [name for name in NAMES if zoo.spec(name).min_size])


@pytest.fixture(scope="module")
def model(request):
    """The model of `zoo.get(name)` with statistics and offsets other than the trivial 0 and 1."""
    model = zoo.get(request.param)
    draw = np.random.default_rng(0)
    for variable in model.variables:
        if len(variable.shape) == 1 and "float" in variable.dtype:
            variable.assign(variable.numpy() + draw.uniform(0, 0.1, variable.shape))
    return model


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


def input_shapes(model):
    """The shape of each input by name."""
    return {tensor.name: tuple(tensor.shape) for tensor in model.inputs}


def outputs(model, values):
    """The model's outputs in inference, as an array."""
    return np.asarray(model(values))


def smallest(name, channels=None):
    """The smallest input shape that the spec allows."""
    spec = zoo.spec(name)
    if len(spec.input_shape) < 3:
        return spec.input_shape
    return (spec.min_size, spec.min_size, channels or spec.input_shape[-1])


def odd(name):
    """A shape of odd, unequal height and width and one channel, or odd numbers of features or tokens."""
    spec = zoo.spec(name)
    size = spec.min_size | 1
    return (size, size + 4, 1) if spec.inputs == ("image",) else (13, 11)[: len(spec.input_shape)]


def close(actual, expected, tolerance):
    """Assert that no difference exceeds this fraction of the largest expected value."""
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


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


@every_model
def test_logits(model):
    """The default model gives finite logits that depend on the input."""
    logits = outputs(model, inputs(model.name))
    assert logits.shape == predicted(model.name)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    assert np.ptp(logits, axis=0).max() > 0
    assert np.ptp(logits, axis=-1).min() > 0


def from_whole_file(model, folder):
    """The model from its `.keras` file, by Keras."""
    import keras

    model.save(Path(folder, "model.keras"))
    return keras.saving.load_model(Path(folder, "model.keras"))


def from_weights_file(model, folder):
    """A new model with the weights of a `.weights.h5` file."""
    model.save_weights(Path(folder, "model.weights.h5"))
    return zoo.get(model.name, weights=str(Path(folder, "model.weights.h5")))


@pytest.mark.parametrize("copied", [from_whole_file, pytest.param(from_weights_file, marks=pytest.mark.slow)])
@pytest.mark.parametrize("model", marked([n for n in NAMES if n in TINY or n in FULL_SIZE], GRAPHS), indirect=True)
def test_saved_and_loaded(model, copied):
    """Both kinds of file restore the same weights and logits."""
    values = inputs(model.name)
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(model, folder)
    for ours, theirs in zip(model.weights, copy.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)
    close(outputs(copy, values), outputs(model, values), 1e-4)


@every_name_in_memory
def test_reduced_precision(name):
    """Under mixed_bfloat16 the smallest input gives float32 logits and a gradient for every weight."""
    import keras
    import tensorflow as tf

    before = keras.config.dtype_policy()
    model = zoo.get(name, dtype="mixed_bfloat16", input_shape=smallest(name))
    assert keras.config.dtype_policy() == before
    hidden = {layer.compute_dtype for layer in model.layers[1:-1]}
    assert not hidden or "bfloat16" in hidden
    with tf.GradientTape() as tape:
        logits = model(inputs(name, smallest(name), count=4), training=True)
        loss = tf.reduce_mean(logits * normal(logits.shape))
    assert logits.dtype == tf.float32
    assert np.isfinite(logits).all()
    gradients = tape.gradient(loss, model.trainable_variables)
    assert [v.path for v, g in zip(model.trainable_variables, gradients, strict=True) if g is None] == []
    gradients = [tf.convert_to_tensor(g) for g in gradients]
    assert all(np.isfinite(g).all() for g in gradients)
    assert sum(float(np.abs(g).sum()) for g in gradients) > 0


@every_name_in_time
def test_odd_shapes_and_scores(name):
    """Odd sizes, one channel and another number of classes build; softmax gives float32 scores that sum to 1."""
    generates = zoo.spec(name).task == "generate"
    wanted = {"vocabulary": 3 + zoo.spec(name).vocabulary} if generates else {"classes": 3}
    model = zoo.get(name, input_shape=odd(name), classifier_activation="softmax", **wanted)
    scores = outputs(model, inputs(name, odd(name)))
    assert scores.shape == predicted(name, *wanted.values(), shape=odd(name))
    assert scores.dtype == np.float32
    assert (scores >= 0).all()
    np.testing.assert_allclose(scores.sum(axis=-1), 1, rtol=1e-5)


@every_graph_in_time
def test_without_head(name):
    """classes=0 gives the features before the logits; include_top=False the last feature map or sequence."""
    features = zoo.get(name, classes=0, input_shape=smallest(name))
    maps = zoo.get(name, include_top=False, input_shape=smallest(name))
    spec = zoo.spec(name)
    assert len(features.output_shape) == (2 if spec.task in ("classify", "embed") else 3)
    assert len(maps.output_shape) == (4 if spec.min_size else 3 if spec.vocabulary else 2)
    assert "logits" not in {layer.name for layer in features.layers + maps.layers}
    if "pool" in {layer.name for layer in features.layers}:
        assert maps.output_shape[-1] == features.output_shape[-1]
    assert np.isfinite(outputs(features, inputs(name, smallest(name)))).all()


@every_graph_in_time
def test_heads(name):
    """Several tasks over one trunk give a dictionary of float32 outputs, each of its size."""
    heads = {"species": 4, "age": zoo.Regression(), "tags": zoo.MultiLabel(3, activation="sigmoid")}
    if zoo.spec(name).task == "generate":
        with pytest.raises(BadOption, match="predicts the tokens of its vocabulary"):
            zoo.get(name, heads=heads)
        return
    model = zoo.get(name, heads=heads, input_shape=smallest(name), dtype="mixed_bfloat16")
    found = {task: np.asarray(y) for task, y in model(inputs(name, smallest(name))).items()}
    units = {"species": 4, "age": 1, "tags": 3}
    assert {task: y.shape for task, y in found.items()} == {task: predicted(name, n) for task, n in units.items()}
    assert {y.dtype.name for y in found.values()} == {"float32"}
    assert ((found["tags"] >= 0) & (found["tags"] <= 1)).all()  # random weights of deep models saturate it
    single = zoo.get(name, heads=zoo.Regression(2), input_shape=smallest(name))
    assert single.output_shape == predicted(name, 2, count=None)


@every_name_in_time
def test_hidden_activation_and_dropout_are_options(name):
    """Every family takes another activation, which changes the model, and dropout of the features."""
    model = zoo.get(name, activation="tanh", dropout=0.25, input_shape=smallest(name))
    used = {layer.activation.__name__ for layer in model.layers if getattr(layer, "activation", None)}
    rates = {getattr(layer, "rate", None) for layer in model.layers}
    if name == "perceptron":  # It has no hidden layer.
        assert used == {"linear"}
    else:
        assert "tanh" in used
        assert 0.25 in rates


@pytest.mark.parametrize("name", marked([name for name in NAMES if zoo.spec(name).min_size]))
def test_features(name):
    """The maps have the strides and channels of feature_info, at the default size and at an odd one."""
    levels = zoo.spec(name).feature_info
    model = zoo.features(name)
    height = zoo.spec(name).input_shape[0]
    assert [shape[-1] for shape in model.output_shape] == [level["channels"] for level in levels]
    assert [2 ** round(np.log2(height / shape[1])) for shape in model.output_shape] == [v["stride"] for v in levels]
    some = zoo.features(name, levels=(0, -1), input_shape=odd(name))
    maps = some(inputs(name, odd(name)))
    assert [m.shape[-1] for m in maps] == [levels[0]["channels"], levels[-1]["channels"]]
    assert all(np.isfinite(m).all() and np.ptp(m) > 0 for m in maps)


@pytest.mark.parametrize("levels", [(), (9,), (-9,), ("a",), 1.5])
def test_bad_levels_are_refused(levels):
    """One line lists the levels."""
    with pytest.raises(BadOption, match="levels must be"):
        zoo.features("resnet_tiny", levels=levels)


def test_features_of_a_model_without_maps():
    """A model of dense layers has none."""
    with pytest.raises(BadOption, match="mlp has no feature maps"):
        zoo.features("mlp")


@pytest.mark.parametrize("model", marked(NAMES, GRAPHS), indirect=True)
def test_names_inside_are_stable(model):
    """Building again gives all layers and operations the same names, and each name is unique."""
    names = [operation.name for operation in model.operations]
    assert len(set(names)) == len(names)
    assert names == [operation.name for operation in zoo.get(model.name).operations]
    small = zoo.get(model.name, input_shape=smallest(model.name))
    assert [layer.name for layer in model.layers if layer.weights] == [v.name for v in small.layers if v.weights]


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


LOAD = """
import sys
import keras, numpy as np
for folder in sys.argv[1:]:
    model = keras.saving.load_model(folder + "/model.keras")
    case = np.load(folder + "/case.npz")
    found, expected = np.asarray(model(case["values"])), case["outputs"]
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max(), folder
assert not {"zoo", "zoo.layers.core"} & set(sys.modules)
"""


def own_layers(model):
    """Names of the layers that Keras does not have."""
    return {type(layer).__name__ for layer in model.layers if type(layer).__module__.startswith("zoo")}


def saved_cases(names, folder, suffix):
    """Save each model with its outputs, one folder each; return the layers that Keras does not have, by family."""
    own = {}
    for name in names:
        model = zoo.get(name)
        place = folder / name
        if own_layers(model):
            own[zoo.spec(name).family] = own_layers(model)
            if suffix == ".keras":
                continue
        place.mkdir()
        model.save(place / "model.keras") if suffix == ".keras" else zoo.save_weights(model, place / f"model{suffix}")
        values = inputs(name)
        named = values if isinstance(values, dict) else {"values": values}
        np.savez(place / "case.npz", outputs=outputs(model, values), **named)
    return own


def smallest_of_each_family():
    """The name of the smallest model of each family."""
    return [min(zoo.list_models(family=family), key=lambda n: zoo.spec(n).params) for family in zoo.list_families()]


@pytest.mark.slow
def test_files_open_without_the_zoo(tmp_path, python):
    """The smallest model of each family opens with Keras alone, in a process where the zoo cannot be imported."""
    own = saved_cases(smallest_of_each_family(), tmp_path, ".keras")
    assert own.keys() == {"alexnet", "bert", "convnext", "encoder", "realmlp", "transformer", "vit"}
    assert own["alexnet"] | own["convnext"] == {"LocalResponseNormalization", "LayerScale"}
    process = python("-c", LOAD, *tmp_path.iterdir(), cwd=tmp_path, env={"PYTHONPATH": ""})
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


JAX = """
import sys
from pathlib import Path
import keras, numpy as np, zoo
assert keras.backend.backend() == "jax"
for folder in map(Path, sys.argv[1:]):
    model = zoo.get(folder.name, weights=folder / "model.safetensors")
    case = dict(np.load(folder / "case.npz"))
    expected = case.pop("outputs")
    found = np.asarray(model(case.get("values", case)))
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max(), folder
assert "tensorflow" not in sys.modules
"""


@pytest.mark.slow
def test_same_outputs_on_jax(tmp_path, python):
    """The smallest model of each family gives the same outputs under Keras' JAX backend, without TensorFlow."""
    saved_cases(smallest_of_each_family(), tmp_path, ".safetensors")
    process = python("-c", JAX, *tmp_path.iterdir(), env={"KERAS_BACKEND": "jax"})
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
