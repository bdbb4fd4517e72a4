"""The source model that formats convert."""

from __future__ import annotations

import numpy as np
import pytest

import zoo
from export.source.source import CALIBRATION_EXAMPLES, SourceModel
from zoo.common.lazy import keras


@pytest.mark.parametrize(("fmt", "counts"), [
    ("tflite", []),
    ("tflite_dynamic", []),
    ("onnx", []),
    ("keras", []),
    ("saved_model", [1]),
    ("tflite_int8", [CALIBRATION_EXAMPLES]),
])  # fmt: skip
def test_formats_read_no_more_training_examples_than_they_need(fmt, counts, tmp_path):
    """None for float formats, one for a warm-up request, and all of the calibration data for static int8 only."""
    requested = []

    def calibrate(count):
        requested.append(count)
        return np.random.default_rng(0).integers(0, 256, (min(count, 4), 6, 6, 3)).astype("float32")

    image = keras.Input((6, 6, 3), name="image")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 3)(image))
    model = keras.Model(image, keras.layers.Dense(2)(x), name="small")
    source = SourceModel(model, zoo.PreprocessingConfig(), ["a", "b"], calibrate, tmp_path)
    assert source.artifact_path(fmt).exists()
    assert requested == counts
