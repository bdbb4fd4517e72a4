"""Published preprocessing: equal to keras.applications' own functions and to what timm records for its checkpoints."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo.specs.preprocessing import CAFFE, IMAGENET

# Configs of timm's checkpoints, copied from its source.
TIMM = json.loads(Path(__file__).with_name("timm_configs.json").read_text())
ENTRIES = {w.source: w for name in zoo.list_models() for w in zoo.spec(name).weights}
# Module of keras.applications by the start of a class name; the longer ones first.
MODULES = {
    "ResNet50V2": "resnet_v2",
    "ResNet101V2": "resnet_v2",
    "ResNet152V2": "resnet_v2",
    "ResNet": "resnet",
    "VGG16": "vgg16",
    "VGG19": "vgg19",
    "InceptionV3": "inception_v3",
    "DenseNet": "densenet",
    "MobileNetV2": "mobilenet_v2",
    "EfficientNet": "efficientnet",
    "ConvNeXt": "convnext",
}


def entries(library):
    """Published weights of a library."""
    return [source for source in ENTRIES if source.startswith(f"{library}/")]


def keras_difference(source, config):
    """The largest difference between a config and the function of keras.applications on random pixels."""
    name = source.partition("/")[2]
    module = next(module for start, module in MODULES.items() if name.startswith(start))
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 5, 7, 3)).astype("float32")
    theirs = importlib.import_module(f"keras.applications.{module}").preprocess_input(pixels.copy())
    scale, offset = (np.asarray(values, "float32") for values in config.affine())
    ours = pixels * scale + offset
    if config.channel_order == "bgr":
        ours = ours[..., ::-1]
    return np.abs(np.asarray(theirs) - ours).max() / np.abs(theirs).max()


@pytest.mark.parametrize("source", entries("keras"))
def test_preprocessing_of_keras_applications(source):
    """The config gives the values of `preprocess_input`, in its order of channels."""
    assert keras_difference(source, ENTRIES[source].preprocessing) < 1e-5


@pytest.mark.parametrize("change", [{"channel_order": "rgb"}, {"std": (255.0,)}, {"mean": IMAGENET.mean}])
def test_other_preprocessing_differs(change):
    """Control: RGB instead of BGR, another scale, or torchvision's means instead of Caffe's."""
    assert keras_difference("keras/VGG16", CAFFE) < 1e-5
    assert keras_difference("keras/VGG16", dataclasses.replace(CAFFE, **change)) > 1e-5


def timm_differences(entry, config):
    """The names of the values in which an entry differs from timm's config."""
    size = (config.get("test_input_size") or config["input_size"])[1]
    ours = entry.preprocessing
    pairs = {
        "mean": (np.broadcast_to(ours.mean, 3), np.multiply(config["mean"], 255)),
        "std": (np.broadcast_to(ours.std, 3), np.multiply(config["std"], 255)),
        "crop": (ours.crop, config.get("test_crop_pct") or config["crop_pct"]),
        "size": (entry.size, size),
    }
    differing = {name for name, (one, other) in pairs.items() if not np.allclose(one, other, rtol=0, atol=1e-4)}
    same = {
        "interpolation": ours.interpolation == config["interpolation"],
        "order": ours.channel_order == "rgb",
        "license": entry.license == config["license"],
    }
    return differing | {name for name, equal in same.items() if not equal}


@pytest.mark.parametrize("source", entries("timm"))
def test_entries_of_timm(source):
    """Mean, std, interpolation, crop, size and license are those that timm records."""
    assert timm_differences(ENTRIES[source], TIMM[source.partition("/")[2]]) == set()


def test_other_entries_differ():
    """Control: each value of an entry is compared."""
    entry = ENTRIES["timm/resnet50.a1_in1k"]
    config = TIMM["resnet50.a1_in1k"]
    for name, change in {
        "mean": {"mean": [0.5, 0.5, 0.5]},
        "std": {"std": [0.5, 0.5, 0.5]},
        "crop": {"test_crop_pct": 0.9},
        "size": {"test_input_size": [3, 224, 224]},
        "interpolation": {"interpolation": "bilinear"},
        "license": {"license": "mit"},
    }.items():
        assert timm_differences(entry, config | change) == {name}


def test_every_entry_states_its_facts():
    """Preprocessing, size and labels are known for every entry; a license only where its library states one."""
    for source, entry in ENTRIES.items():
        assert entry.preprocessing is not None, source
        assert entry.labels == "imagenet-1k", source
        assert entry.size >= 224, source
        assert entry.bgr == (entry.preprocessing.channel_order == "bgr")
    unknown = {source for source, entry in ENTRIES.items() if entry.license is None}
    assert {source.partition("/")[0] for source in unknown} == {"keras", "torchvision"}
    assert "keras/MobileNetV2" not in unknown
    assert "keras/ConvNeXtTiny" in unknown
