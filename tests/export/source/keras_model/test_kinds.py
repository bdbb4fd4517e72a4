"""Models of the kinds that users bring, each exported to every float format that can hold it, and to int8."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

import export
from zoo.common.errors import UnsupportedExport

pytestmark = pytest.mark.slow

FLOATS = ("keras", "saved_model", "tflite", "tflite_fp16", "onnx", "onnx_fp16", "openvino")
INT8 = ("tflite_int8", "onnx_int8", "openvino_int8")


def shared_trunk():
    """Two images through one trunk, which is a model of its own, compared by their difference."""
    trunk = keras.Sequential([keras.Input((16, 16, 3)), layers.Conv2D(8, 3, activation="relu"), layers.Flatten()])
    left, right = keras.Input((16, 16, 3), name="left"), keras.Input((16, 16, 3), name="right")
    return keras.Model([left, right], layers.Dense(3)(ops.absolute(trunk(left) - trunk(right))))


def normalized_groups():
    """Grouped convolutions, group normalization and a squeezed gate."""
    image = keras.Input((16, 16, 3))
    x = layers.Activation("silu")(layers.GroupNormalization(4)(layers.Conv2D(16, 3, 2, padding="same")(image)))
    x = layers.BatchNormalization()(layers.Conv2D(16, 3, groups=4, padding="same")(x))
    gate = layers.Dense(16, "hard_sigmoid")(layers.Dense(4, "relu")(layers.GlobalAveragePooling2D(keepdims=True)(x)))
    return keras.Model(image, layers.Dense(5)(layers.Flatten()(layers.Multiply()([x, gate]))))


def attention():
    """Token ids through an encoder of Keras' own layers, with an exact GELU."""
    ids = keras.Input((12,), dtype="int32", name="ids")
    x = layers.Embedding(50, 16)(ids)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
    x = layers.LayerNormalization()(x + layers.Dense(16)(layers.Dense(32, "gelu")(x)))
    return keras.Model(ids, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def recurrent():
    """Padded token ids through an LSTM, which reads no state in its first step."""
    ids = keras.Input((8,), dtype="int32", name="ids")
    return keras.Model(ids, layers.Dense(3)(layers.LSTM(8)(layers.Embedding(50, 8, mask_zero=True)(ids))))


def augmented():
    """Preprocessing and augmentation inside, and dropout."""
    parts = [
        layers.Rescaling(1 / 255), layers.RandomFlip(), layers.RandomRotation(0.1),
        layers.Conv2D(8, 3, activation="relu"), layers.BatchNormalization(), layers.MaxPooling2D(), layers.Dropout(0.3),
        layers.Flatten(), layers.Dense(4, "softmax"),
    ]  # fmt: skip
    return keras.Sequential([keras.Input((20, 20, 3)), *parts])


def segmented():
    """An encoder and decoder with transposed convolutions and a map as output, next to a number."""
    image = keras.Input((16, 16, 1), name="image")
    down = layers.Conv2D(8, 3, 2, padding="same", activation="relu")(image)
    up = layers.Concatenate()([layers.Conv2DTranspose(4, 3, 2, padding="same")(down), image])
    return keras.Model(image, {"mask": layers.Conv2D(2, 1)(up), "area": layers.Dense(1)(layers.Flatten()(down))})


def volumes():
    """Three-dimensional convolutions."""
    return keras.Sequential(
        [keras.Input((8, 8, 8, 1)), layers.Conv3D(4, 3, activation="relu"), layers.Conv3D(4, 2, 2), layers.Flatten(),
         layers.Dense(2)]
    )  # fmt: skip


def series():
    """Causal and dilated convolutions over time."""
    return keras.Sequential(
        [keras.Input((64, 3)), layers.Conv1D(8, 5, 2, activation="relu"), layers.Conv1D(8, 3, padding="causal",
         dilation_rate=2), layers.AveragePooling1D(2), layers.Flatten(), layers.Dense(4)]
    )  # fmt: skip


def half():
    """Mixed float16."""
    policy = keras.DTypePolicy("mixed_float16")
    x = image = keras.Input((16, 16, 3))
    x = layers.BatchNormalization(dtype=policy)(layers.Conv2D(8, 3, activation="relu", dtype=policy)(x))
    return keras.Model(image, layers.Dense(4, dtype="float32")(layers.Flatten(dtype=policy)(x)))


# Which formats are refused: LiteRT has no float16 weights of Conv3D, and lacks integer kernels of some operators.
MODELS = {
    shared_trunk: ("tflite_int8",), normalized_groups: (), attention: (), augmented: (),
    segmented: (),
    volumes: ("tflite_fp16", "tflite_int8"), series: (), half: (),
}  # fmt: skip


def settled(model):
    """Return a model with statistics and offsets that a wrong conversion cannot survive."""
    draw = np.random.default_rng(1)
    for variable in model.variables:
        if "moving_variance" in variable.path:
            variable.assign(draw.random(variable.shape) * 0.5 + 0.75)
        elif "moving_mean" in variable.path or variable.path.endswith(("/bias", "/beta")):
            variable.assign(draw.standard_normal(variable.shape) * 0.05)
    return model


def examples_of(model, count=80):
    """Return random inputs of a model, in a list: token ids, pixels where the model scales them, or normal numbers."""
    draw = np.random.default_rng(0)
    scaled = any(isinstance(layer, layers.Rescaling) for layer in model.layers)

    def values(tensor):
        shape = (count, *tensor.shape[1:])
        if "int" in tensor.dtype:
            return draw.integers(1, 50, shape)
        return draw.uniform(0, 255, shape) if scaled else draw.normal(size=shape)

    return list(map(values, model.inputs))


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_every_float_format(build, tmp_path):
    """Each is verified; its values are the model's own, by name."""
    keras.utils.set_random_seed(0)
    model = settled(build())
    examples = examples_of(model)
    wanted = [fmt for fmt in FLOATS if fmt not in MODELS[build]]
    artifacts = export.convert(model, wanted, calibration=examples, out=tmp_path / "out")
    assert [artifact.format for artifact in artifacts] == wanted
    few = [values[:4] for values in examples]
    expected = model.predict(few if len(few) > 1 else few[0], verbose=0)
    for artifact in artifacts:
        found = export.load(artifact.path)(few if len(few) > 1 else few[0])
        for name in expected if isinstance(expected, dict) else [None]:
            true, own = (expected, found) if name is None else (expected[name], found[name])
            np.testing.assert_allclose(own, true, atol=0.02 * np.abs(true).max())


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_int8_is_within_tolerance_or_refused_by_the_layer(build, tmp_path):
    """What is refused names the operator and its layer."""
    keras.utils.set_random_seed(0)
    model = settled(build())
    for fmt in INT8:
        if fmt in MODELS[build]:
            with pytest.raises(UnsupportedExport, match=r"Received: (operators=\w+ of \w+|layer '\w+' with \w+)"):
                export.convert(model, fmt, calibration=examples_of(model), out=tmp_path / "out")
        else:
            (artifact,) = export.convert(model, fmt, calibration=examples_of(model), out=tmp_path / "out")
            assert artifact.parity["passed"]


def test_int8_of_a_recurrent_layer(tmp_path):
    """Its steps are side by side in integers; the first one has a gate that nothing reads."""
    keras.utils.set_random_seed(0)
    model = settled(recurrent())
    artifacts = export.convert(
        model, ["tflite_int8", "onnx_int8"], calibration=examples_of(model), out=tmp_path / "out"
    )
    assert all(artifact.parity["passed"] for artifact in artifacts)


def test_strings_stay_in_tensorflow(tmp_path):
    """A model with its own vocabulary takes strings in a SavedModel; other formats refuse the input."""
    vectorize = layers.TextVectorization(max_tokens=20, output_sequence_length=6)
    vectorize.adapt(["a model is exported", "and verified in every runtime"])
    text = keras.Input((1,), dtype="string", name="text")
    model = keras.Model(text, layers.Dense(2)(layers.Flatten()(layers.Embedding(20, 4)(vectorize(text)))))
    (artifact,) = export.convert(model, "saved_model", out=tmp_path / "out")
    texts = np.array([["a model in every runtime"], ["nothing is known"]])
    expected = np.asarray(model(ops.convert_to_tensor(texts)))
    np.testing.assert_allclose(export.load(artifact.path)(texts), expected, atol=1e-6)
    with pytest.raises(UnsupportedExport, match=r"inputs must be numbers\. Received: text of strings"):
        export.convert(model, "onnx", out=tmp_path / "none")
