"""Any built Keras model is exported as it is, by its own names, and stays as it was."""

from __future__ import annotations

import json
import threading

import keras
import numpy as np
import pytest
from keras import layers

import export
from export.source.copies import float32_config
from zoo.common.errors import BadOption, DataError, ParityError, UnsupportedExport

FORMATS = ("onnx", "tflite")


def two_in_two_out():
    """A model of an image and a table, with a dictionary of outputs whose keys are not the names of layers."""
    photo, table = keras.Input((12, 12, 3), name="photo"), keras.Input((6,), name="measurements")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu")(layers.Rescaling(1 / 255)(photo)))
    x = layers.Concatenate()([x, layers.Dense(4, "tanh")(table)])
    outputs = {"species": layers.Dense(3, "softmax", name="head")(x), "age": layers.Dense(1, name="other")(x)}
    return keras.Model([photo, table], outputs, name="two_by_two")


def examples(count=40):
    """Return examples of its inputs."""
    random = np.random.default_rng(0)
    return [random.uniform(0, 255, (count, 12, 12, 3)).astype("float32"), random.normal(size=(count, 6))]


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """The model, its artifacts by format, and its weights before."""
    keras.utils.set_random_seed(0)
    model = two_in_two_out()
    model.compile("adam", {"species": "sparse_categorical_crossentropy", "age": "mse"})
    before = [w.copy() for w in model.get_weights()], model.optimizer, model.count_params()
    made = export.convert(model, FORMATS, calibration=examples(), out=tmp_path_factory.mktemp("several"))
    return model, {artifact.format: artifact for artifact in made}, before


@pytest.mark.parametrize("fmt", FORMATS)
def test_several_inputs_and_outputs_keep_names_order_and_structure(several, fmt):
    """They are the user's in the runtime and in the manifest, and values are the model's."""
    model, artifacts, _ = several
    runtime = export.load(artifacts[fmt].path)
    assert [tensor.name for tensor in runtime.inputs] == ["photo", "measurements"]
    assert [tensor.name for tensor in runtime.outputs] == ["species", "age"]
    metadata = artifacts[fmt].manifest["metadata"]
    assert metadata["structure"] == {
        "inputs": ["photo", "measurements"], "outputs": {"species": "species", "age": "age"}
    }  # fmt: skip
    assert [(one["name"], one["shape"]) for one in metadata["inputs"]] == [
        ("photo", [12, 12, 3]),
        ("measurements", [6]),
    ]
    given, expected = examples(5), model.predict(examples(5), verbose=0)
    for values in (given, dict(zip(("photo", "measurements"), given, strict=True))):
        found = runtime(values)
        assert found.keys() == expected.keys()
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-4)
    with pytest.raises(BadOption, match=r"inputs photo, measurements\. Received: others"):
        runtime(given[0])


def test_artifacts_verify_again_and_are_reported(several, tmp_path):
    """The manifest and the samples in the folder suffice."""
    _, artifacts, _ = several
    folder = artifacts["onnx"].folder
    assert export.verify(folder).parity["outputs"]["age"]["passed"]
    report = export.report(folder.parent, out=tmp_path)
    assert {one["name"] for one in report.to_json()["artifacts"]} >= {"onnx", "tflite"}


def test_nothing_of_the_model_changes(several):
    """Weights, compilation and trainable variables stay."""
    model, _, (weights, optimizer, count) = several
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert model.optimizer is optimizer
    assert model.count_params() == count
    assert len(model.trainable_variables) == len(model.variables)


def test_a_changed_output_is_refused(several, tmp_path):
    """The control: the samples of one output are changed, and the artifact is out of tolerance."""
    from export.core.samples import read_samples
    from export.core.tolerance import FLOAT32_TOLERANCE
    from export.verification.parity import compare

    artifact = several[1]["onnx"]
    samples = read_samples(artifact.folder / "samples.npz")
    runtime = export.load(artifact.path)
    assert compare(runtime, samples, FLOAT32_TOLERANCE, artifact.manifest["metadata"]).passed
    samples["logits"]["age"] = samples["logits"]["age"] * 1.01
    found = compare(runtime, samples, FLOAT32_TOLERANCE, artifact.manifest["metadata"])
    assert not found.passed
    assert not found.outputs["age"].passed
    assert found.outputs["species"].passed


def test_local_classes_under_reduced_precision_from_a_thread(tmp_path):
    """A class that no other process can import is converted here, in float32, whatever the global policy is."""

    class Residual(keras.Model):
        """A subclassed model."""

        def __init__(self, width=4, **more):
            super().__init__(**more)
            self.width = width
            self.first, self.head = layers.Conv2D(3, 3, padding="same", activation="relu"), layers.Dense(width)

        def call(self, images):
            return self.head(keras.ops.mean(images + self.first(images), axis=(1, 2)))

    pixels, found = np.random.default_rng(0).normal(size=(20, 8, 8, 3)).astype("float32"), []
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = Residual()
        model(pixels[:2])

        def convert():
            found.extend(export.convert(model, "onnx", calibration=pixels, out=tmp_path / "out"))

        for _ in range(2):  # again: the second replaces the first
            thread = threading.Thread(target=convert)
            thread.start()
            thread.join()
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        logits = model.predict(pixels, verbose=0)
    finally:
        keras.config.set_dtype_policy("float32")
    assert len(found) == 2
    outputs = export.load(found[0].path)(pixels)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, logits, atol=0.05)
    # In float32, nothing of bfloat16 is left.
    assert np.abs(outputs - logits).max() > 1e-5


def test_file_by_the_command(tmp_path, zoo_command):
    """`zoo export FILE` with examples, labels and names of classes: accuracy decides, and classes have names."""
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(32, "relu"), layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(pixels / 16, classes, epochs=3, verbose=0)
    path = tmp_path / "digits.keras"
    model.save(path)
    np.save(tmp_path / "rows.npy", pixels[:300] / 16)
    (tmp_path / "names.txt").write_text("".join(f"digit {number}\n" for number in range(10)))
    code, output, error = zoo_command(
        "export", path, "--format", "tflite_int8", "--calibration", tmp_path / "rows.npy", "--labels",
        tmp_path / "names.txt", "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert code == 0, error
    (manifest,) = json.loads(output)
    assert manifest["metadata"]["labels"][3] == "digit 3"
    assert manifest["metadata"]["task"] == "classify"
    assert manifest["source"] | {"model_sha256": ""} == {
        "model": "digits", "file": "digits.keras", "model_sha256": "", "calibrated_on": "file"
    }  # fmt: skip
    assert manifest["parity"]["agreement"] > 0.9


def test_labels_let_the_accuracy_decide(tmp_path):
    """A pair of examples and labels, here a tf.data.Dataset of batches, measures the accuracy of both."""
    import tensorflow as tf
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    pixels = (pixels / 16).astype("float32")
    model = keras.Sequential([keras.Input((64,), name="pixels"), layers.Dense(10)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    model.fit(pixels, classes, epochs=8, verbose=0)
    data = tf.data.Dataset.from_tensor_slices((pixels, classes)).batch(100)
    (artifact,) = export.convert(model, "onnx_int8", calibration=data, out=tmp_path / "out")
    parity = artifact.parity
    assert parity["n"] == 500
    assert parity["source_accuracy"] > 0.7
    assert abs(parity["accuracy"] - parity["source_accuracy"]) < 0.02
    assert parity["decided_by"] == "accuracy"
    assert [tensor["name"] for tensor in artifact.manifest["inputs"]] == ["pixels"]


def test_operations_without_layers(tmp_path):
    """keras.ops in the graph, an integer input, and a shared layer are exported; noise has tokens of the vocabulary."""
    ids, extra = keras.Input((8,), dtype="int32", name="ids"), keras.Input((8,), name="extra")
    embed = layers.Embedding(30, 6)
    x = keras.ops.concatenate([embed(ids), extra[..., None]], axis=-1)
    left, right = keras.ops.split(keras.ops.softmax(keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1)))), 2, axis=1)
    model = keras.Model([ids, extra], layers.Dense(2)(keras.ops.max(keras.ops.where(left > 0.2, left, right), axis=1)))
    artifacts = export.convert(model, ["onnx", "tflite"], out=tmp_path / "out")
    assert {artifact.manifest["samples"] for artifact in artifacts} == {"noise"}
    assert artifacts[0].manifest["source"]["noise"] == "normal"


def test_recurrent_layers_are_exported_without_loops(tmp_path):
    """ONNX files have the steps of layers with a mask side by side; what Keras unrolls in another way is refused."""
    ids = keras.Input((10,), dtype="int32", name="ids")
    embedded = layers.Embedding(20, 6, mask_zero=True)(ids)
    x = layers.LSTM(4, return_sequences=True)(embedded)
    model = keras.Model(ids, layers.Dense(2)(layers.Bidirectional(layers.GRU(5))(x)))
    tokens = np.random.default_rng(0).integers(1, 20, (40, 10))
    tokens[::2, 6:] = 0
    artifacts = export.convert(model, ["onnx", "tflite"], calibration=tokens, out=tmp_path / "out")
    expected = model.predict(tokens, verbose=0)
    for artifact in artifacts:
        np.testing.assert_allclose(export.load(artifact.path)(tokens), expected, atol=1e-5)
    both = keras.Model(ids, layers.LSTM(3)(layers.Bidirectional(layers.GRU(4, return_sequences=True))(embedded)))
    with pytest.raises(UnsupportedExport, match=r"layer 'forward_gru\w*' with TensorListReserve\. Use a fixed number"):
        export.convert(both, "onnx", calibration=tokens, out=tmp_path / "both")


def test_free_sizes_stay_where_a_format_has_them(tmp_path):
    """A SavedModel takes images of any size; LiteRT needs one, and gets it from input_shape."""
    x = keras.Input((None, None, 3), name="photo")
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))))
    (artifact,) = export.convert(model, "saved_model", out=tmp_path / "out")
    runtime = export.load(artifact.path)
    assert runtime.inputs[0].shape == (None, None, None, 3)
    for size in (9, 17):
        photos = np.random.default_rng(0).normal(size=(2, size, size + 3, 3)).astype("float32")
        np.testing.assert_allclose(runtime(photos), model.predict(photos, verbose=0), atol=1e-5)
    with pytest.raises(UnsupportedExport, match=r"must be fixed\. Received: photo of shape \(None, None, None, 3\)"):
        export.convert(model, "tflite", out=tmp_path / "none")
    (artifact,) = export.convert(model, "tflite", out=tmp_path / "out", options={"input_shape": [12, 16, 3]})
    assert export.load(artifact.path).inputs[0].shape == (1, 12, 16, 3)


def test_reduced_precision_is_replaced_everywhere():
    """Policies of layers, casts in the graph and nested models are float32 in the configuration."""
    policy = keras.DTypePolicy("mixed_float16")
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype=policy)])
    x = keras.Input((4,))
    y = keras.ops.cast(inner(x), "float16")
    model = keras.Model(x, layers.Dense(2, dtype="bfloat16")(y))
    model.compile("adam", "mse")
    text = json.dumps(float32_config(model))
    assert "float16" not in text
    assert "compile_config" not in text
    assert "float16" in json.dumps(keras.saving.serialize_keras_object(model))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": "onnx_int8"}, r"onnx_int8 needs calibration data\. Received: model='plain' without any"),
        ({"options": {"tasks": "classify"}}, r"Received: 'tasks'\.Did you mean 'task'|Received: 'tasks'"),
        ({"options": {"input_range": [3, 1]}}, r"input_range must be \[low, high\].*Received: input_range=\[3, 1\]"),
        ({"options": {"task": "regress"}}, r"task must be one of classify, any, binary, numeric\. Received: task="),
        ({"options": {"custom": "Dense"}}, r"custom must be MODULE:CLASS\. Received: custom=\['Dense'\]"),
        ({"weights": "imagenet"}, r"weights does not apply to a Keras model.*Received: weights='imagenet'"),
        ({"compress": "prune:0.5"}, r"compress applies to trained runs alone\. Received: compress='prune:0.5'"),
        ({"calibration": np.zeros((10, 5))}, r"must have the shape \(n, 4\)\. Received: calibration of \(10, 5\)"),
        ({"calibration": [np.zeros((10, 4)), np.zeros((9, 4))]}, r"same number of each input.*Received: \[9, 10\]"),
        ({"calibration": iter(())}, r"Received: an empty dataset"),
        ({"calibration": "nowhere"}, r"calibration must be .*Received: 'nowhere', which does not exist"),
        ({"calibration": np.full((20, 4), np.nan)}, r"Examples of rows must be finite"),
        ({"labels": ["a"], "options": {"task": "classify"}}, r"labels must name 3 classes\. Received: 1 names"),
        ({"calibration": (np.eye(4)[[0, 1] * 10], np.full(20, 7))}, r"Labels must be from 0 to 2\. Received: 7 to 7"),
    ],
)
def test_what_does_not_fit_is_one_line(options, message, tmp_path):
    """Expected, received, and what to do; nothing is left."""
    x = keras.Input((4,), name="rows")
    model = keras.Model(x, layers.Dense(3)(x), name="plain")
    with pytest.raises((BadOption, DataError), match=message):
        export.convert(model, options.pop("formats", "onnx"), out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_files_with_code_are_refused(tmp_path):
    """A Lambda layer in a file is not opened; in memory it is the user's own code."""
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2)(layers.Lambda(lambda value: value * 2.0)(x)), name="scaled")
    model.save(tmp_path / "scaled.keras")
    with pytest.raises(BadOption, match="Lambda layer, which holds code"):
        export.convert(tmp_path / "scaled.keras", "onnx", out=tmp_path / "refused")
    (artifact,) = export.convert(model, "onnx", out=tmp_path / "out")
    rows = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_allclose(export.load(artifact.path)(rows), model.predict(rows, verbose=0), atol=1e-5)


def test_constant_model_cannot_be_compared(tmp_path):
    """Outputs that are the same for all examples agree with those of any artifact."""
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2, kernel_initializer="zeros", bias_initializer="ones")(x))
    with pytest.raises(ParityError, match="only zeros in all kernels"):
        export.convert(model, "onnx", out=tmp_path / "out")


def test_outputs_of_layers_that_do_not_fit_into_memory_are_one_line(tmp_path):
    """A layer that repeats its input is refused before it is computed."""
    x = keras.Input((4,), name="rows")
    repeated = layers.GlobalAveragePooling1D()(layers.RepeatVector(10**12)(x))
    model = keras.Model(x, layers.Dense(3)(repeated), name="repeating")
    with pytest.raises(BadOption, match=r"free\. Received: a call of repeating with \d+ examples of 4, which needs at"):
        export.convert(model, "onnx", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
