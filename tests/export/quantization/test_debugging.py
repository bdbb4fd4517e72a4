"""Layers by the error that int8 adds, layers that the user excludes, and one scale for a whole kernel."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

import export
import zoo
from export.backends.litert.file import read
from zoo.common.errors import BadOption, UnsupportedExport

layers = keras.layers
DATA = np.random.default_rng(0).normal(size=(120, 16, 16, 3)).astype("float32")
INT8 = ("tflite_int8", "onnx_int8", "openvino_int8")


@pytest.fixture(scope="module")
def model():
    """Two blocks and a head; int8 costs most in the second block."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((16, 16, 3), name="picture")
    for i in (1, 2):
        x = layers.Conv2D(12, 3, padding="same", use_bias=False, name=f"block{i}_conv")(x)
        x = layers.BatchNormalization(name=f"block{i}_norm")(x)
        x = layers.ReLU(name=f"block{i}_relu")(x)
    model = keras.Model(image, layers.Dense(5, name="head")(layers.GlobalAveragePooling2D()(x)), name="two_blocks")
    # The second block multiplies a dead channel by far larger weights than the others.
    for name, place, factor in (("block1_conv", np.s_[..., 0], 0.0), ("block2_conv", np.s_[:, :, 0], 60.0)):
        (kernel,) = model.get_layer(name).get_weights()
        kernel[place] *= factor
        model.get_layer(name).set_weights([kernel])
    return model


def snr(model, request, folder):
    """The signal-to-noise ratio of an artifact in dB, and the layers that stayed in float."""
    (artifact,) = export.convert(model, request, calibration=DATA, out=folder)
    return artifact.parity["snr"], artifact.manifest["quantization"]["excluded"], artifact


def test_the_worst_layer_is_first(model):
    """It is the one with the planted weight; the float model of the comparison is exact."""
    found = export.debug_quantization(model, calibration=DATA)
    assert found[0].layer == "block2_conv"
    assert (found[0].kind, found[0].weights) == ("Conv2D", 9 * 12 * 12)
    assert found[0].model_snr < found[1].model_snr - 5
    assert {error.layer for error in found} >= {"block1_conv", "block1_relu", "block2_relu", "head"}
    assert all(np.isfinite([error.model_snr, error.layer_snr]).all() for error in found)
    json.dumps([error.to_json() for error in found])


@pytest.mark.parametrize("name", INT8)
def test_named_layers_stay_in_float(name, model, tmp_path):
    """Without the worst layer the artifact is closer; wildcards name several; a name that fits none is refused."""
    whole, _, _ = snr(model, name, tmp_path / "whole")
    without, layer, _ = snr(model, f"{name}:exclude=block2_conv", tmp_path / "one")
    _, several, artifact = snr(model, f"{name}:exclude=head+block2_*", tmp_path / "several")
    assert layer == ["block2_conv"]
    assert without > whole + 10
    assert several == ["block2_conv", "block2_norm", "block2_relu", "head"]
    assert export.verify(artifact.path).parity["passed"]
    assert artifact.manifest["inspection"]["weights"]["float32"] >= 9 * 12 * 12 + 12 * 5
    with pytest.raises(
        BadOption, match=r"exclude must name layers of two_blocks\. Received: exclude=hed\. Did you mean"
    ):
        export.convert(model, f"{name}:exclude=hed", calibration=DATA, out=tmp_path / "wrong")


def scales(artifact):
    """The numbers of scales of the kernels in a LiteRT file."""
    graph = read(artifact.path.read_bytes()).subgraphs[0]
    kernels = [t for t in graph.tensors if len(t.shape) in (2, 4) and t.type == 9 and t.quantization.scale is not None]
    return {len(t.quantization.scale) for t in kernels if 3 in t.shape or 12 in t.shape}


def test_one_scale_for_a_kernel(model, tmp_path):
    """As asked, in the file; by default one for each channel."""
    _, _, artifact = snr(model, "tflite_int8:per_channel=false", tmp_path / "tensor")
    assert scales(artifact) == {1}
    _, _, artifact = snr(model, "tflite_int8", tmp_path / "channel")
    assert 12 in scales(artifact)
    with pytest.raises(BadOption, match="rounding=learned needs a scale for each channel"):
        export.convert(model, "onnx_int8:per_channel=false,rounding=learned", calibration=DATA, out=tmp_path / "no")


def test_the_command(model, tmp_path, zoo_command):
    """A table of the worst layers, JSON of all, and one line for a model without a graph."""
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "data.npy", DATA[:40])
    command = ("debug-quantization", str(tmp_path / "m.keras"), "--calibration", str(tmp_path / "data.npy"))
    table = zoo_command(*command, "--top", "2")[1].splitlines()
    assert table[1].split()[:2] == ["block2_conv", "Conv2D"]
    assert "layers with less error are left out" in table[-1]
    assert json.loads(zoo_command(*command, "--json")[1])[0]["layer"] == "block2_conv"


def test_the_layers_of_a_run(copied, tmp_path, zoo_command):
    """A run needs nothing but its path; every layer with a kernel is listed, with finite numbers."""
    run = copied(tmp_path / "run")
    code, out, err = zoo_command("debug-quantization", run.path, "--json")
    found = {error["layer"]: error for error in json.loads(out)}
    kernels = [layer.name for layer in keras.saving.load_model(run.model_path).layers if hasattr(layer, "kernel")]
    assert (code, err) == (0, "")
    assert found.keys() >= set(kernels)
    assert np.isfinite([[error["model_snr"], error["layer_snr"]] for error in found.values()]).all()


QUICK = ("transformer_tiny",)  # layers with several outputs, and without weights


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
        for name in zoo.list_models("*_tiny")
        if zoo.spec(name).params < 400_000
    ],
)
def test_every_family(name):
    """The layers of every small model are listed; a finite number for each, and the outputs differ by int8 alone."""
    found = export.debug_quantization(name, weights="random")
    assert len(found) > 1
    assert np.isfinite([[error.model_snr, error.layer_snr] for error in found]).all()
    assert found[-1].model_snr > 20


def test_masks_reach_the_layers_after_one():
    """The rounded output of a layer keeps its mask: the recurrent layer after it ignores padding."""
    ids = keras.Input((8,), dtype="int32", name="ids")
    x = layers.Embedding(20, 6, mask_zero=True, name="table")(ids)
    x = layers.Dense(6, name="mix")(x)
    model = keras.Model(ids, layers.Dense(3, name="head")(layers.GRU(5, name="memory")(x)), name="masked")
    data = np.random.default_rng(0).integers(1, 20, (60, 8)).astype("int32")
    data[:, 3:] = 0
    errors = {error.layer: error.model_snr for error in export.debug_quantization(model, calibration=data)}
    assert errors["mix"] > 25


def test_models_without_a_graph_are_refused():
    """A subclassed model has no layers to change one by one."""

    class Own(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.dense = layers.Dense(3)

        def call(self, x):
            return self.dense(x)

    own = Own()
    own(np.zeros((1, 4), "float32"))
    with pytest.raises(UnsupportedExport, match=r"Expected a functional model.*Received: own, a Own"):
        export.debug_quantization(own, calibration=np.random.default_rng(0).normal(size=(20, 4)).astype("float32"))
