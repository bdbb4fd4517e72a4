"""Weights of keras.applications: the logits are the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from keras_cases import CAFFE, KERAS, keras_application
from weights_cases import inputs_for, relative_error, slow_unless

import zoo
from zoo.common.errors import BadOption

QUICK_KERAS = {"ResNet50"}


@pytest.mark.parametrize("application", [slow_unless(name in QUICK_KERAS, name) for name in KERAS])
def test_keras_applications_give_their_logits(application):
    """A model of keras.applications as weights gives its logits on the same input, in RGB where theirs takes BGR."""
    theirs = keras_application(application)
    ours = zoo.get(KERAS[application], input_shape=theirs.input_shape[1:], weights=theirs)
    values = inputs_for(theirs) * 50
    in_their_order = values[..., ::-1] if application in CAFFE else values
    assert relative_error(ours, values, np.asarray(theirs(in_their_order))) < 1e-4
    published = next(w for w in zoo.spec(ours.name).weights if w.source == f"keras/{application}")
    assert zoo.preprocessing(ours) == dataclasses.replace(published.preprocessing, channel_order="rgb")


def test_keras_applications_from_a_file(tmp_path):
    """The `.keras` file of such a model works too; a changed statistic (control) changes the logits."""
    theirs = keras_application("MobileNetV2")
    theirs.save(tmp_path / "theirs.keras")
    ours = zoo.get("mobilenet_v2", input_shape=theirs.input_shape[1:], weights=tmp_path / "theirs.keras")
    values = inputs_for(theirs)
    expected = np.asarray(theirs(values))
    assert relative_error(ours, values, expected) < 1e-4
    average = ours.get_layer("stage3_block1_depthwise_norm").moving_mean
    average.assign(average + 0.5)
    assert relative_error(ours, values, expected) > 1e-3


@pytest.mark.parametrize(("name", "theirs", "hint"), [("resnet50", "ResNet50", "Did you mean 'resnet50_v1'")])
def test_variant_of_keras_is_named(name, theirs, hint):
    """The error for another variant of keras.applications names the model that fits."""
    import keras

    with pytest.raises(BadOption, match=hint):
        zoo.get(name, weights=getattr(keras.applications, theirs)(weights=None, input_shape=(32, 32, 3)))
