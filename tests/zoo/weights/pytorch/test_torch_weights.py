"""Weights of torchvision and timm: the logits are those of PyTorch; published weights, their heads and their facts."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from torch_state import random_images, random_state
from weights_cases import (
    HEADS,
    assert_same,
    assert_trunk,
    made,
    one_line,
    refusal,
    relative_error,
    slow_unless,
    transposed,
    values_of,
    with_key,
    without,
)

import zoo
from zoo.common.errors import BadOption
from zoo.specs.preprocessing import IMAGENET
from zoo.specs.registry import models
from zoo.weights.loading import load_weights
from zoo.weights.source import WeightsSource

HERE = Path(__file__).parent
# Logits of torchvision and timm for a reproducible state; see record_torch.py.
REFERENCES = json.loads(gzip.decompress((HERE / "torch_references.json.gz").read_bytes()))
# One of each name mapping for `make test`; the controls use ResNet-18 anyway.
QUICK_TORCH = {
    f"{library}/{name}"
    for library, names in {
        "torchvision": "resnet18 mobilenet_v2",
        "timm": "vit_tiny_patch16_224",
    }.items()
    for name in names.split()
}
# Our names of models with another name there.
OUR_NAMES = {"torchvision/alexnet": "alexnet_owt", "timm/mobilenetv2_100": "mobilenet_v2"}


def torch_state_of(model_id):
    """The state dict of a recorded reference."""
    reference = REFERENCES[model_id]
    return random_state({key: tuple(shape) for key, shape in reference["keys"].items()}, reference["variance"])


@pytest.fixture(scope="module")
def resnet18_state():
    """The state of torchvision's ResNet-18; tests take copies."""
    return torch_state_of("torchvision/resnet18")


def torch_parity(model_id, state, folder):
    """Relative error of our logits from the recorded ones, with the state loaded from a safetensors file."""
    reference, path = REFERENCES[model_id], folder / "state.safetensors"
    height, width = reference["size"]
    save_file(state, path)
    try:
        model = zoo.get(
            OUR_NAMES.get(model_id, model_id.partition("/")[2]), input_shape=(height, width, 3), weights=path
        )
    finally:
        path.unlink()  # up to half a gigabyte that pytest would not delete
    return relative_error(model, random_images(height, width), np.array(reference["logits"]))


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


def kernel_transposed(state):
    state["layer4.1.conv1.weight"] = np.ascontiguousarray(state["layer4.1.conv1.weight"].swapaxes(0, 1))


@pytest.mark.parametrize("change", [nudged, kernels_swapped, averages_swapped, kernel_transposed])
def test_torch_parity_can_fail(change, resnet18_state, tmp_path):
    """Control: one wrong value of a kernel, or two swapped tensors of one shape, change the logits."""
    state = {key: array.copy() for key, array in resnet18_state.items()}
    change(state)
    assert torch_parity("torchvision/resnet18", state, tmp_path) > 1e-3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_torch_weights_of_other_floats(dtype, resnet18_state, tmp_path):
    """A state of another float type is loaded as float32."""
    import ml_dtypes

    other = np.dtype(getattr(ml_dtypes, dtype, dtype))
    state = {key: array.astype(other) for key, array in resnet18_state.items()}
    save_file(state, tmp_path / "state.safetensors")
    model = zoo.get("resnet18", input_shape=(32, 32, 3), weights=tmp_path / "state.safetensors")
    assert np.array_equal(model.get_layer("logits").bias.numpy(), state["fc.bias"].astype("float32"))
    kernel = state["layer1.0.conv1.weight"].astype("float32").transpose(2, 3, 1, 0)
    assert np.array_equal(model.get_layer("stage1_block1_conv1").kernel.numpy(), kernel)


UNDER_JAX = """
import sys
import numpy as np
import zoo
path, images, expected = sys.argv[1:]
images, expected = np.load(images), np.load(expected)
model = zoo.get("resnet18", input_shape=images.shape[1:], weights=path)
difference = np.abs(np.asarray(model(images))[:, : expected.shape[1]] - expected).max()
print(difference / np.abs(expected).max(), "tensorflow" in sys.modules)
"""


@pytest.mark.slow
def test_torch_weights_under_jax(resnet18_state, tmp_path, python):
    """The same file gives the same logits under Keras' JAX backend, without TensorFlow."""
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


@pytest.fixture
def home(tmp_path, monkeypatch, resnet18_state):
    """A folder of weights downloaded by hand, with the file of "imagenet" of ResNet-18; returns its name."""
    name = zoo.spec("resnet18").weights[0].source
    path = tmp_path / "home" / f"{name}.safetensors"
    path.parent.mkdir(parents=True)
    save_file(resnet18_state, path)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    return name


@pytest.mark.parametrize("by_name", [True, False], ids=["name", "imagenet"])
def test_published_weights(by_name, home):
    """A name loads the file of that name."""
    reference = REFERENCES["torchvision/resnet18"]
    model = zoo.get("resnet18", input_shape=(*reference["size"], 3), weights=home if by_name else "imagenet")
    assert relative_error(model, random_images(*reference["size"]), np.array(reference["logits"])) < 1e-4


@pytest.mark.parametrize(
    ("options", "heads"),
    [({"classes": 10}, ["logits"]), ({"heads": HEADS}, ["species_logits", "age_logits"]), ({"classes": 0}, [])],
    ids=["classes", "heads", "features"],
)
def test_published_weights_leave_another_head_random(options, heads, home):
    """With published weights, a head of another size starts at random over the trained trunk."""
    expected = values_of(zoo.get("resnet18", input_shape=(32, 32, 3), weights="imagenet"))
    model = zoo.get("resnet18", input_shape=(32, 32, 3), weights="imagenet", **options)
    assert_trunk(model, expected, heads)


def test_published_weights_state_their_facts(home):
    """Weights by name have the table's facts; a head of another size has no labels, and one line says so."""
    entry = zoo.spec("resnet18").weights[0]
    info = zoo.info(zoo.get("resnet18", input_shape=(32, 32, 3), weights="imagenet"))
    assert (info.preprocessing, info.license, info.origin) == (entry.preprocessing, entry.license, entry.source)
    assert (info.labels_origin, info.input_size) == ("imagenet-1k", (288, 288))
    assert (len(info.labels), info.labels[281]) == (1000, "tabby cat")
    assert info.preprocessing != zoo.spec("resnet18").preprocessing
    with pytest.warns(UserWarning, match=r"have 1000 classes; the last layer of resnet18 \(10 classes\) starts"):
        other = zoo.get("resnet18", input_shape=(32, 32, 3), weights="imagenet", classes=10)
    assert zoo.info(other) == dataclasses.replace(info, labels=None, labels_origin=None)


TORCH_KERNEL = "layer2.0.conv1.weight"  # (128, 64, 3, 3)
BROKEN_TORCH = {
    "no kernel": (without(TORCH_KERNEL), f"1 missing there: {TORCH_KERNEL}"),
    "no scale": (without("layer1.0.bn1.weight"), "1 missing there: layer1.0.bn1.weight"),
    "no mean": (without("layer1.0.bn1.running_mean"), "1 missing there: layer1.0.bn1.running_mean"),
    "another layer": (with_key("layer9.conv.weight", np.ones(3)), "1 not expected here: layer9.conv.weight"),
    "wrong axes": (transposed(TORCH_KERNEL), "stage2_block1_conv1/kernel is (3, 3, 64, 128) here"),
    "another class count": (with_key("fc.bias", np.ones(10)), "have 10 classes; the model has 1000"),
}


@pytest.fixture(scope="module")
def resnet18():
    """A ResNet-18 that no test changes."""
    return made("resnet18", input_shape=(32, 32, 3))


@pytest.mark.parametrize(("change", "hint"), BROKEN_TORCH.values(), ids=BROKEN_TORCH)
def test_torch_state_with_a_fault_is_refused(change, hint, resnet18, resnet18_state):
    """The message lists the differences with PyTorch's names, and nothing is loaded."""
    before = values_of(resnet18)
    source = WeightsSource(
        "weights='x'", change(resnet18_state), models["resnet18"].name_mappings["torchvision"], library="torch"
    )
    with pytest.raises(BadOption) as error:
        load_weights(resnet18, source, lambda: resnet18)
    assert hint in one_line(error.value)
    assert_same(values_of(resnet18), before)


def test_torch_file_of_another_model_is_refused(resnet18_state, tmp_path):
    """Another architecture, another head, or a family without a PyTorch name mapping."""
    path = tmp_path / "state.safetensors"
    save_file(resnet18_state, path)
    assert "layer1.2.conv1.weight" in refusal("resnet34", path, input_shape=(32, 32, 3))
    assert "missing there" in refusal("mobilenet_v2", path, input_shape=(32, 32, 3))
    assert "have 1000 classes; the model has 10." in refusal("resnet18", path, input_shape=(32, 32, 3), classes=10)
    assert "resnet_tiny cannot load files of timm or torchvision" in refusal("resnet_tiny", path)


def test_file_of_torch_states_no_preprocessing(resnet18_state, tmp_path):
    """A state dict says nothing of its pixels: asked for, not guessed."""
    save_file(resnet18_state, tmp_path / "state.safetensors")
    options = {"input_shape": (32, 32, 3), "weights": tmp_path / "state.safetensors"}
    assert zoo.preprocessing(zoo.get("resnet18", **options)) is None
    assert zoo.preprocessing(zoo.get("resnet18", preprocessing="imagenet", **options)) == IMAGENET


@pytest.mark.parametrize("name", ["googlenet", pytest.param("inception_v3", marks=pytest.mark.slow)])
def test_auxiliary_classifiers_are_loaded(name, tmp_path):
    """auxiliary=True loads the auxiliary classifiers too, and the logits are the same."""
    reference, state = REFERENCES[f"torchvision/{name}"], torch_state_of(f"torchvision/{name}")
    save_file(state, tmp_path / "state.safetensors")
    weights = tmp_path / "state.safetensors"
    model = zoo.get(name, input_shape=(*reference["size"], 3), auxiliary=True, weights=weights)
    logits = np.asarray(model(random_images(*reference["size"]))["logits"])[:, :16]
    assert np.abs(logits - reference["logits"]).max() <= 1e-4 * reference["logits_max"]
    taken = [v.numpy() for v in model.weights if v.path.startswith("auxiliary") and v.path.endswith("bias")]
    theirs = [v for k, v in state.items() if k.lower().startswith("aux") and k.endswith("fc.bias")]
    theirs = theirs or [v for k, v in state.items() if k.startswith("aux") and k.endswith("fc2.bias")]
    assert theirs
    assert all(any(np.array_equal(value, bias) for bias in taken if bias.shape == value.shape) for value in theirs)
