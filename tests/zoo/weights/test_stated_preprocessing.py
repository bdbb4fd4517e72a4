"""Preprocessing is that of the weights: published, of keras.applications, in the file, or as the user states it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from weights_cases import FILES, every_file, made, one_line, saved, values_of

import zoo
from zoo.common.errors import BadOption
from zoo.layers import saving
from zoo.specs.preprocessing import CAFFE, SYMMETRIC

MINE = zoo.PreprocessingConfig((10.0, 20.0, 30.0), (40.0,), "bicubic", 0.8, background=(7.0,))


@every_file
def test_a_file_keeps_what_is_known(kind, tmp_path):
    """Preprocessing, labels, license and origin are those of the saved model."""
    model = made("resnet_tiny")
    known = dataclasses.replace(
        zoo.info(model),
        preprocessing=MINE,
        labels=tuple("abcdefghij"),
        license="mit",
        origin="somewhere",
        input_size=(32, 32),
        revision="r",
        sha256="0" * 64,
    )
    again = zoo.get("resnet_tiny", weights=saved(saving.with_info(model, known), kind, tmp_path))
    assert zoo.info(again) == known
    headless = zoo.get("resnet_tiny", classes=0, weights=tmp_path / f"resnet_tiny{kind}")
    assert zoo.info(headless) == dataclasses.replace(known, labels=None)
    anew = zoo.get("resnet_tiny", heads={"x": 3}, weights=tmp_path / f"resnet_tiny{kind}")
    assert zoo.info(anew).labels is None


def mute(folder):
    """A file of resnet_tiny that states nothing."""
    save_file(values_of(made("resnet_tiny")), folder / "mute.safetensors", metadata={"format": "keras-zoo"})
    return folder / "mute.safetensors"


@pytest.mark.filterwarnings("ignore:.*are assumed")
@pytest.mark.parametrize("stated", [MINE, "tf", json.dumps(MINE.to_json()), {"std": 255}])
def test_stated_preprocessing_wins_for_a_mute_file(stated, tmp_path):
    """A file that states nothing has what the user states, and nothing (the control) otherwise."""
    assert zoo.preprocessing(zoo.get("resnet_tiny", weights=mute(tmp_path))) is None
    model = zoo.get("resnet_tiny", weights=mute(tmp_path), preprocessing=stated)
    expected = {"tf": SYMMETRIC}.get(stated) if stated == "tf" else None
    expected = expected or (zoo.PreprocessingConfig(std=(255.0,)) if isinstance(stated, dict) else MINE)
    assert zoo.preprocessing(model) == expected
    assert np.array_equal(values_of(model)["stem/kernel"], values_of(made("resnet_tiny"))["stem/kernel"])


@pytest.mark.filterwarnings("ignore:.*are assumed")
def test_stated_bgr_reverses_the_first_kernel(tmp_path):
    """A file for BGR becomes a model for RGB, whose own file is for RGB."""
    model = zoo.get("resnet_tiny", weights=mute(tmp_path), preprocessing="caffe")
    assert zoo.preprocessing(model) == dataclasses.replace(CAFFE, channel_order="rgb")
    kernel = values_of(made("resnet_tiny"))["stem/kernel"]
    assert np.array_equal(values_of(model)["stem/kernel"], kernel[:, :, ::-1])
    assert not np.array_equal(values_of(model)["stem/kernel"], kernel)
    again = zoo.get("resnet_tiny", weights=saved(model, ".safetensors", tmp_path))
    assert np.array_equal(values_of(again)["stem/kernel"], values_of(model)["stem/kernel"])
    with pytest.raises(BadOption, match="must be that of the weights"):
        zoo.get("resnet_tiny", weights=saved(model, ".safetensors", tmp_path), preprocessing="caffe")


def test_contradicting_preprocessing_is_refused(tmp_path):
    """Other values than those of the file are refused; how images are resized is the user's choice."""
    path = saved(saving.with_info(made("resnet_tiny"), zoo.info(made("resnet_tiny"))), FILES[-1], tmp_path)
    for stated in ("imagenet", "raw", dataclasses.replace(SYMMETRIC, channel_order="bgr")):
        with pytest.raises(BadOption, match="preprocessing must be that of the weights") as error:
            zoo.get("resnet_tiny", weights=path, preprocessing=stated)
        one_line(error.value)
    resized = dataclasses.replace(SYMMETRIC, interpolation="bicubic", crop=0.5, background=(0.0,))
    assert zoo.preprocessing(zoo.get("resnet_tiny", weights=path, preprocessing=resized)) == resized


def test_tag_that_the_table_does_not_know():
    """Another tag of timm has no preprocessing; a revision is that of the entry."""
    from zoo.specs.registry import models
    from zoo.weights.names import resolve

    assert resolve(models["resnet18"], "timm/resnet18.other").preprocessing is None
    known = zoo.spec("resnet18").weights[0]
    assert resolve(models["resnet18"], f"{known.source}@abc") == dataclasses.replace(known, revision="abc")
