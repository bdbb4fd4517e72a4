"""The sizes that a weights file states: they need not be passed to an export."""

from __future__ import annotations

import re

import pytest
from safetensors.numpy import save_file

import export
import zoo
from export.source.request import RegistryRequest
from export.source.sizes import stated_sizes
from zoo.common.errors import BadOption
from zoo.common.lazy import keras
from zoo.specs.registry import models

pytestmark = pytest.mark.tensorflow
BOTH = {"classes": 5, "input_shape": (20, 24, 3)}


def saved(folder, name="cnn_tiny", **arguments):
    """The files of a small model: whole as `.keras` and `.h5`, and its weights."""
    model = zoo.get(name, **arguments)
    for suffix in (".keras", ".h5", ".weights.h5"):
        (model.save_weights if "weights" in suffix else model.save)(folder / f"model{suffix}")
    zoo.save_weights(model, folder / "model.safetensors")
    return {path.name.removeprefix("model"): path for path in folder.iterdir()}


def test_each_kind_of_file(tmp_path):
    """A whole model states classes and shape, a file of weights the classes."""
    found = {kind: stated_sizes(models["cnn_tiny"], path) for kind, path in saved(tmp_path, **BOTH).items()}
    assert found == {".keras": BOTH, ".h5": BOTH} | {key: {"classes": 5} for key in (".weights.h5", ".safetensors")}


def test_own_sizes_and_features(tmp_path):
    """The sizes of the spec are not repeated; features have no classes."""
    for kind, path in saved(tmp_path, classes=zoo.spec("cnn_tiny").classes).items():
        assert stated_sizes(models["cnn_tiny"], path) == {}, kind
    for kind, path in saved(tmp_path, classes=0).items():
        assert stated_sizes(models["cnn_tiny"], path) == {}, kind


def test_files_of_other_libraries(tmp_path):
    """The head has their name in a file of PyTorch, and is the last layer of a nested model of Keras."""
    save_file({"fc.weight": zoo.get("cnn_tiny").layers[-1].kernel.numpy().T[:3].copy()}, tmp_path / "a.safetensors")
    assert stated_sizes(models["resnet18"], tmp_path / "a.safetensors") == {"classes": 3}
    trunk = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(64, 64, 3), alpha=0.35)
    dense = [keras.layers.Dense(8, activation="relu"), keras.layers.Dense(7, activation="softmax")]
    keras.Sequential([trunk, keras.layers.GlobalAveragePooling2D(), *dense]).save(tmp_path / "b.h5")
    assert stated_sizes(models["mobilenet_v2"], tmp_path / "b.h5") == {"classes": 7, "input_shape": (64, 64, 3)}
    trunk.save(tmp_path / "c.keras")
    assert stated_sizes(models["mobilenet_v2"], tmp_path / "c.keras") == {"input_shape": (64, 64, 3)}


def test_inputs_of_any_size_are_asked_for(tmp_path):
    """A file that does not say for which size it was made is refused in one line, unless the user says it."""
    trunk = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(None, None, 3), alpha=0.35)
    path = str(tmp_path / "any.h5")
    trunk.save(path)
    with pytest.raises(BadOption, match=rf"Received: '{re.escape(path)}'.*\(None, None, 3\)\. Pass input_shape"):
        RegistryRequest.locate("mobilenet_v2", path, "", {})
    asked = RegistryRequest.locate("mobilenet_v2", path, "", {"input_shape": (96, 96, 3)})
    assert asked.shape == (96, 96, 3)


def test_unreadable_files_are_reported_when_they_are_opened(tmp_path):
    """In one line, by the process that opens them."""
    for suffix in (".keras", ".h5", ".safetensors"):
        path = tmp_path / f"bad{suffix}"
        path.write_bytes(b"nothing")
        assert stated_sizes(models["cnn_tiny"], path) == {}
    with pytest.raises(BadOption, match="weights must be a readable safetensors file"):
        export.convert("cnn_tiny", "onnx", weights=path, out=tmp_path / "out")


@pytest.mark.parametrize("kind", [pytest.param(".keras", marks=pytest.mark.slow), ".safetensors"])
def test_an_export_takes_them(kind, tmp_path):
    """The user's own sizes come first; the artifact has those of the file."""
    given = BOTH if kind == ".keras" else {"classes": 5}
    path = saved(tmp_path, **given, preprocessing="unit")[kind]
    (artifact,) = export.convert("cnn_tiny", "tflite", weights=path, out=tmp_path / "out")
    metadata = artifact.manifest["metadata"]
    assert (len(metadata["labels"]), tuple(metadata["shape"])) == (5, given.get("input_shape", (32, 32, 3)))
    own = RegistryRequest.locate("cnn_tiny", str(path), "", {"classes": 3})
    assert own.classes == 3
