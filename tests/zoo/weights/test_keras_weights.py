"""Weights of keras.applications: the logits are the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from weights_cases import inputs_for, randomize, relative_error, slow_unless

import zoo
from zoo.common.errors import BadOption

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
CAFFE = {"VGG16", "VGG19", "ResNet50", "ResNet101", "ResNet152"}
QUICK_KERAS = {"ResNet50"}
# The dense layers of VGG accept one size only.
SIZES = dict.fromkeys(("VGG16", "VGG19"), (224, 224)) | {"InceptionV3": (107, 91)}


def keras_application(name):
    """A model of keras.applications with random weights and statistics, and logits as outputs."""
    import keras

    # Automatic names then do not start at "conv2d", as in a process that has built other models.
    keras.layers.Conv2D(1, 1), keras.layers.Dense(1), keras.layers.BatchNormalization()
    shape = (*SIZES.get(name, (96, 83)), 3)
    application = getattr(keras.applications, name)
    return randomize(application(weights=None, input_shape=shape, classifier_activation=None))


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
