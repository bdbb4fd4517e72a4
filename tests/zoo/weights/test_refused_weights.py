"""Weights that do not fit or cannot be read are refused in one line, and nothing is loaded or executed."""

from __future__ import annotations

import functools
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from weights_cases import (
    FILES,
    HEADS,
    TINY,
    assert_same,
    broken_arrays,
    every_file,
    made,
    one_line,
    randomize,
    refusal,
    renamed,
    saved,
    slow_unless,
    transposed,
    values_of,
    with_key,
    without,
)

import zoo
from zoo.common.errors import BadOption
from zoo.layers.lazy import layers
from zoo.weights.loading import load_weights
from zoo.weights.source import WeightsSource

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
    """A name that is not among the model's weights is refused without a download."""
    message = refusal(name, weights)
    assert hint in message
    assert f"Received: weights={weights!r}" in message


KERNEL = "stage2_block1_conv1/kernel"  # (3, 3, 8, 16)
# (change to a file of resnet_tiny, options of zoo.get, part of the message)
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
    "another layer with features": (with_key("other/x", np.ones(3)), {"classes": 0}, "not expected here: other/x"),
    "another variable with features": (
        with_key("stem/other", np.ones(3)),
        {"classes": 0},
        "not expected here: stem/other",
    ),
    "another name": (renamed(KERNEL, "conv/kernel"), {}, f"1 missing there: {KERNEL}; 1 not expected here: conv/k"),
    "wrong axes": (transposed(KERNEL), {}, f"{KERNEL} is (16, 8, 3, 3) there, {KERNEL} is (3, 3, 8, 16) here"),
    "wrong axes of the first": (transposed("stem/kernel"), {}, "stem/kernel is (8, 3, 3, 3) there"),
    "wrong axes of the head": (transposed("logits/kernel"), {}, "logits/kernel is (10, 32) there"),
    "another size": (with_key("stem_norm/beta", np.ones(9)), {}, "1 of another shape: stem_norm/beta is (9,) there"),
    "no axes": (with_key("stem_norm/beta", np.ones(())), {}, "stem_norm/beta is () there"),
    "another class count": (lambda arrays: arrays, {"classes": 7}, "have 10 classes; the model has 7. Pass classes=10"),
    "everything missing": (lambda _: {}, {}, "missing there"),
}  # fmt: skip
every_break = pytest.mark.parametrize(("change", "options", "hint"), BROKEN.values(), ids=BROKEN)


@every_break
def test_file_with_a_fault_is_refused(change, options, hint, tmp_path):
    """The message lists the difference and the file."""
    path = tmp_path / "broken.safetensors"
    save_file(broken_arrays(change), path, metadata={"format": "keras-zoo"})
    message = refusal("resnet_tiny", path, **options)
    assert hint in message
    assert f"Received: weights={str(path)!r}" in message


@every_break
def test_nothing_is_loaded_in_part(change, options, hint):
    """A model is unchanged if one array does not fit."""
    options = {name: 0 if value is None else value for name, value in options.items()}
    model = randomize(zoo.get("resnet_tiny", **options), seed=4)
    before = values_of(model)
    with pytest.raises(BadOption) as error:
        load_weights(model, WeightsSource("weights='x'", broken_arrays(change)), lambda: made("resnet_tiny"))
    assert hint in one_line(error.value)
    assert_same(values_of(model), before)


@pytest.mark.parametrize("options", [{}, {"classes": 0}, {"heads": HEADS}], ids=["whole", "features", "heads"])
def test_bias_without_a_norm_is_refused(options, tmp_path):
    """A bias that cannot be folded is not dropped."""
    arrays = values_of(made("resnetv2_tiny")) | {"stage1_block1_conv3/bias": np.ones(32, "float32")}
    save_file(arrays, tmp_path / "biased.safetensors", metadata={"format": "keras-zoo"})
    hint = "1 not expected here: stage1_block1_conv3/bias"
    assert hint in refusal("resnetv2_tiny", tmp_path / "biased.safetensors", **options)


OTHERS = [
    ("vgg_tiny", {}, "resnet_tiny"),
    ("resnet_tiny", {}, "vgg_tiny"),
    ("vgg_tiny", {}, "vgg_bn_tiny"),
    ("resnet_tiny", {"classes": 7}, "resnet_tiny"),
]


@pytest.mark.parametrize("kind", [pytest.param(".keras", marks=pytest.mark.slow), *FILES[1:], "model"])
@pytest.mark.parametrize(("source", "options", "name"), OTHERS, ids=[f"{s}{o}-{n}" for s, o, n in OTHERS])
def test_another_model_is_refused(source, options, name, kind, tmp_path):
    """A file or a keras.Model with other layers or sizes is refused in one line."""
    weights = saved(zoo.get(source, **options), kind, tmp_path)
    message = refusal(name, weights)
    assert f"weights must fit {name}. Received: weights=" in message
    assert (f"<{source}>" if kind == "model" else str(weights)) in message


@pytest.mark.parametrize("name", [slow_unless(n in ("mlp_tiny", "resnet_tiny", "deit_micro_tiny"), n) for n in TINY])
def test_features_are_no_new_head(name):
    """The last layer of a model without classes is no head that could start at random."""
    model = zoo.get(name, classes=0, dropout=0.0)
    arrays = values_of(model)
    last = [key for key in arrays if key.endswith("/kernel")][-1]
    for change, hint in ((without(last), "1 missing there"), (with_key(last, np.ones((2, 2))), "1 of another shape")):
        with pytest.raises(BadOption) as error:
            load_weights(model, WeightsSource("weights='x'", change(arrays)), functools.partial(made, name))
        assert f"{hint}: {last}" in one_line(error.value)
    assert_same(values_of(model), arrays)


def test_heads_of_another_size_are_refused(tmp_path):
    """A file with the head by name, but in another size, is refused."""
    path = saved(zoo.get("mlp_tiny", heads={"species": 7}), ".safetensors", tmp_path)
    assert "species_logits/kernel" in refusal("mlp_tiny", path, heads={"species": 5})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with files of mlp_tiny and unreadable files."""
    folder, draw = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    model = made("mlp_tiny")
    for kind in FILES:
        content = saved(model, kind, folder).read_bytes()
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
    """A damaged or missing file, a folder and another kind of file are refused in one line with the path."""
    assert f"Received: weights={str(files / file)!r}" in refusal("mlp_tiny", str(files / file))


@every_file
def test_damaged_file_is_refused_or_the_same(kind, files, tmp_path):
    """One changed byte gives weights or one line, never another error."""
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
    """An object that creates a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pkl", *FILES])
@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "zipped"])
def test_pickle_is_refused_unopened(suffix, zipped, tmp_path):
    """A pickle, plain or in a zip file as PyTorch writes it, is refused with any suffix and not executed."""
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
    """A `.keras` file with a layer instead of a model is refused."""
    import keras

    layer = keras.layers.Dense(3)
    layer.build((None, 4))
    keras.saving.save_model(layer, tmp_path / "layer.keras")
    assert str(tmp_path / "layer.keras") in refusal("mlp_tiny", tmp_path / "layer.keras")


CALLS_SYSTEM = {"module": "os", "class_name": "system", "config": {"command": "touch executed"}, "registered_name": ""}


@pytest.mark.parametrize("config", ["{}", "[]", "null", "{", "\0", json.dumps(CALLS_SYSTEM)])
def test_keras_file_of_another_configuration_is_refused(config, tmp_path, monkeypatch):
    """A `.keras` file without the config of a model is refused in one line, and nothing in it is called."""
    monkeypatch.chdir(tmp_path)
    made("mlp_tiny").save_weights(tmp_path / "model.weights.h5")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("config.json", config)
        archive.writestr("metadata.json", "{}")
        archive.write("model.weights.h5")
    assert str(tmp_path / "other.keras") in refusal("mlp_tiny", tmp_path / "other.keras")
    assert not (tmp_path / "executed").exists()


def test_name_too_long_for_a_file_is_refused():
    """A path that no file system accepts is refused in one line too."""
    assert "an existing file" in refusal("mlp_tiny", "a" * 300 + ".keras")


def no_weights():
    """Values that are neither path, name nor model."""
    import keras

    return [3, True, 1.5, b"imagenet", [], {}, ("imagenet",), np.ones(3), keras.layers.Dense(1), keras.Model, object()]


@pytest.mark.parametrize("number", range(11))
def test_value_that_is_no_weights(number):
    """Any value but a path, a name or a model is refused with a list of what is accepted."""
    assert "a path, a name or a keras.Model" in refusal("mlp_tiny", no_weights()[number])


def test_empty_model_is_refused():
    """An empty or unbuilt Sequential fits nothing."""
    import keras

    for model in (keras.Sequential(), keras.Sequential([keras.layers.Dense(3)])):
        assert "missing there" in refusal("mlp_tiny", model)


def test_files_of_a_similar_model_are_refused(tmp_path):
    """resnet50_v1 has the names and shapes of resnet50; only the metadata of a file distinguishes them."""
    with layers.skip_initialization():
        zoo.save_weights(zoo.get("resnet50_v1"), tmp_path / "v1.safetensors")
    with pytest.raises(BadOption, match=r"weights must fit resnet50\. .*made for resnet50_v1"):
        zoo.get("resnet50", weights=tmp_path / "v1.safetensors")
