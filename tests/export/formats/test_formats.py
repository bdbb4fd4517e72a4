"""Every format in its real runtime, against the Keras model that was trained."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys

import numpy as np
import pytest

import export
import training
from export.core.format import formats
from export.core.manifest import SAMPLES
from export.core.samples import read_samples
from export.verification.encoded import encode_png
from training.data.dataset import datasets
from zoo.specs.registry import models

NAMES = (
    "keras", "onnx", "onnx_dynamic", "onnx_fp16", "onnx_int8", "openvino", "openvino_int8", "saved_model", "tflite",
    "tflite_dynamic", "tflite_fp16", "tflite_int4", "tflite_int8", "tflite_int16x8",
)  # fmt: skip
FLOATS = ("keras", "onnx", "openvino", "saved_model", "tflite")
INT8 = ("onnx_dynamic", "onnx_int8", "openvino_int8", "tflite_dynamic", "tflite_int8")


@pytest.fixture(scope="module")
def samples(artifacts):
    """All test images with the labels and the logits of the source."""
    return read_samples(artifacts["onnx"].path.parent / SAMPLES)


@pytest.fixture(scope="module")
def trained(digits_run, samples):
    """Logits of model.keras itself, preprocessed as in training, computed without `export`."""
    from training.common.preprocess import normalize
    from training.learning.evaluation import load_model
    from zoo import PreprocessingConfig

    preprocessing = digits_run.result()["preprocessing"]
    preprocessing = PreprocessingConfig(tuple(preprocessing["mean"]), tuple(preprocessing["std"]))
    return load_model(digits_run).predict(normalize(samples["inputs"], preprocessing), verbose=0)


def test_every_format_is_tested():
    """A new format fails here until the list above names it."""
    assert tuple(formats.names()) == NAMES


@pytest.mark.slow
def test_conversion_happens_in_another_process(digits_run, tmp_path):
    """Converters leak, so the user's process never loads them."""
    shutil.copytree(digits_run.path, tmp_path / "run", ignore=shutil.ignore_patterns("exports"))
    code = (
        "import sys, export\n"
        f"print(len(export.convert({str(tmp_path / 'run')!r}, ['onnx', 'tflite_int8'])))\n"
        "print(*sorted({'tf2onnx', 'litert_quantizer'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == ["2", ""]


@pytest.mark.parametrize("name", NAMES)
def test_artifact_equals_the_trained_model(artifacts, samples, trained, digits_run, name):
    """On all 360 test images, at two batch sizes, through `export.load`."""
    runtime = export.load(artifacts[name].path)
    assert len(samples["inputs"]) == 360
    logits = runtime(samples["inputs"])
    assert logits.shape == (360, 10)
    assert logits.dtype == np.float32
    scale = np.abs(trained).max()
    tolerance = formats[name].tolerance
    assert np.abs(logits - trained).max() <= tolerance.relative * scale
    # ONNX Runtime's dynamic int8 takes one range for all that is in a batch.
    alone = tolerance.relative / 10 if name == "onnx_dynamic" else 1e-5
    np.testing.assert_allclose(runtime(samples["inputs"][:3]), logits[:3], atol=alone * scale)
    accuracy = (logits.argmax(1) == samples["labels"]).mean()
    assert accuracy >= digits_run.result()["test"]["accuracy"] - tolerance.drop - 1e-9
    assert (logits.argmax(1) == trained.argmax(1)).mean() >= tolerance.agreement


@pytest.mark.parametrize("name", INT8)
def test_int8_preserves_accuracy(artifacts, name):
    """Within 0.6 points of the float model."""
    parity = artifacts[name].parity
    assert parity["source_accuracy"] > 0.8
    assert parity["accuracy"] >= parity["source_accuracy"] - 0.006


@pytest.mark.parametrize("name", NAMES)
def test_interface_and_metadata(artifacts, digits_run, name):
    """Names of input and output, batch, labels and preprocessing are in the artifact itself."""
    runtime, manifest = export.load(artifacts[name].path), artifacts[name].manifest
    assert [t.name for t in runtime.inputs] == ["image"]
    assert [t.name for t in runtime.outputs] == ["logits"]
    assert runtime.batch == (1 if name.startswith("tflite") else None)
    assert runtime.metadata == manifest["metadata"]
    assert runtime.metadata["labels"] == [str(d) for d in range(10)]
    assert runtime.metadata["preprocessing"] == {**digits_run.result()["preprocessing"], "inside": True}
    assert manifest["parity"]["n"] == 360
    assert manifest["parity"]["passed"]
    assert len(manifest["parity"]["batches"]) == (1 if runtime.batch else 2)


def test_sizes_shrink_as_promised(artifacts):
    """Half for float16 weights, and well under half for int8."""
    size = {name: artifact.manifest["bytes"] for name, artifact in artifacts.items()}
    assert size["tflite_fp16"] < 0.75 * size["tflite"]
    assert size["tflite_int8"] < 0.6 * size["tflite"]
    assert size["tflite_dynamic"] < 0.6 * size["tflite"]


def _tensors(artifact):
    """Return the tensors of a .tflite, but those the delegate adds."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        str(artifact.path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    return interpreter.get_tensor_details(), interpreter


def test_tflite_int8_has_no_float_tensor(artifacts):
    """int8 in, int8 out, nothing in float between; raw pixels pass the input unchanged."""
    tensors, interpreter = _tensors(artifacts["tflite_int8"])
    assert {np.dtype(t["dtype"]).name for t in tensors} <= {"int8", "int32", "int64", "bool"}
    (given,), (out,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert np.dtype(given["dtype"]) == np.dtype(out["dtype"]) == np.int8
    assert given["quantization"] == (1.0, -128)
    # The control: the same inspection of the float file finds floats.
    assert np.float32 in {t["dtype"] for t in _tensors(artifacts["tflite"])[0]}


def test_tflite_weights_have_the_promised_types(artifacts):
    """float16 weights in tflite_fp16; int8 weights with a scale for each channel in the others."""
    assert np.float16 in {t["dtype"] for t in _tensors(artifacts["tflite_fp16"])[0]}
    for name in ("tflite_dynamic", "tflite_int8"):
        weights = [t for t in _tensors(artifacts[name])[0] if t["dtype"] == np.int8 and len(t["shape"]) == 4]
        assert any(len(t["quantization_parameters"]["scales"]) > 1 for t in weights)


def test_onnx_is_valid_and_standard(artifacts):
    """The checker and shape inference accept it, and no operator is ONNX Runtime's own."""
    import onnx

    for name in ("onnx", "onnx_dynamic", "onnx_int8"):
        model = onnx.load(artifacts[name].path)
        onnx.checker.check_model(model, full_check=True)
        assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
        assert not any("BatchNormalization" in node.op_type for node in model.graph.node)


def test_onnx_int8_is_quantized_by_channel(artifacts):
    """uint8 activations; every convolution reads int8 weights with a scale for each channel."""
    import onnx

    graph = onnx.load(artifacts["onnx_int8"].path).graph
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert convolutions
    for node in convolutions:
        activation, weight = (made[name] for name in node.input[:2])
        assert activation.op_type == weight.op_type == "DequantizeLinear"
        assert constants[weight.input[0]].dtype == np.int8
        assert constants[weight.input[1]].size == constants[weight.input[0]].shape[0]
        assert constants[activation.input[2]].dtype == np.uint8


def test_onnx_dynamic_quantizes_products_alone(artifacts):
    """Their int8 weights have a scale for each unit; convolutions, which would be slower, stay float32."""
    import onnx

    graph = onnx.load(artifacts["onnx_dynamic"].path).graph
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    (product,) = [node for node in graph.node if node.op_type == "MatMulInteger"]
    weights = constants[product.input[1]]
    assert weights.dtype == np.int8
    scale = next(value for name, value in constants.items() if name.endswith("_scale"))
    assert scale.size == weights.shape[1]
    assert all(constants[node.input[1]].dtype == np.float32 for node in graph.node if node.op_type == "Conv")


def _jpeg(image, size):
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image.astype("uint8")[..., 0]).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=95)
    return file.getvalue()


def test_saved_model_takes_encoded_images(artifacts, samples):
    """PNG and JPEG of any size in; logits, scores and labels out, decoded as in training."""
    import tensorflow as tf

    path = artifacts["saved_model"].path
    assert path.name == "1"
    assert (path / "saved_model.pb").is_file()
    assert (path / "assets" / "labels.txt").read_text().split() == [str(d) for d in range(10)]
    serve = tf.saved_model.load(str(path)).signatures["serve_bytes"]
    files = [encode_png(samples["inputs"][0]), _jpeg(samples["inputs"][1], (40, 64)), encode_png(samples["inputs"][2])]
    out = serve(tf.constant(files))
    assert set(out) == {"logits", "scores", "labels"}
    np.testing.assert_allclose(out["logits"].numpy()[[0, 2]], samples["logits"][[0, 2]], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(out["scores"].numpy().sum(1), 1.0, rtol=1e-5)
    assert out["labels"].numpy().tolist() == [str(i).encode() for i in out["logits"].numpy().argmax(1)]


def test_encoded_images_are_read_as_in_training(artifacts, samples, digits_run):
    """A large JPEG through the artifact equals the pipeline's own decoding and the float signature."""
    import zoo
    from training.common.preprocess import decode
    from training.data.pipeline.opening import open_pipeline

    file = _jpeg(samples["inputs"][5], (57, 33))
    runtime = export.load(artifacts["saved_model"].path)
    pipeline = open_pipeline(digits_run.recipe, zoo.spec(digits_run.recipe.model.name))
    decoded = decode(file, pipeline.shape, pipeline.preprocessing).numpy()[None].astype("uint8").astype("float32")
    np.testing.assert_allclose(runtime.classify_bytes([file]), runtime(decoded), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def table_run(tmp_path_factory):
    """A perceptron on features, from a third party's dataset and script."""
    folder = tmp_path_factory.mktemp("third_party")
    (folder / "their_iris.py").write_text(THEIR_CODE)
    sys.path.insert(0, str(folder))
    saved = [(r, dict(r._entries), dict(r._origins)) for r in (models, datasets) if r.names()]
    import their_iris

    yield training.train(their_iris.RECIPE, run=folder / "run")
    sys.path.remove(str(folder))
    for registry, entries, origins in saved:
        registry._entries, registry._origins = entries, origins


THEIR_CODE = """
import tensorflow as tf
import training, zoo
from sklearn.datasets import load_iris
from zoo.common.lazy import keras


@training.register_dataset("their_iris")
def iris(config):
    x, y = load_iris(return_X_y=True)
    parts = {"train": slice(0, None, 2), "validation": slice(1, None, 4), "test": slice(3, None, 4)}
    make = lambda p: tf.data.Dataset.from_tensor_slices((x[p].astype("float32"), y[p].astype("int64")))
    splits = {name: training.Split(make(p), len(x[p])) for name, p in parts.items()}
    preprocessing = zoo.PreprocessingConfig(tuple(map(float, x.mean(0))), tuple(map(float, x.std(0))))
    return training.Dataset("their_iris", ("setosa", "versicolor", "virginica"), (4,), splits, preprocessing)


@zoo.register_model("their_net", zoo.ModelSpec((4,), 3), params=83)
def their_net(x, head, *, width: int = 10):
    return head(keras.layers.Dense(width, "tanh", name="hidden")(x))


RECIPE = training.Recipe(
    name="their_recipe",
    model=training.ModelConfig("their_net"),
    data=training.DataConfig("their_iris", batch_size=15),
    optimizer=training.OptimizerConfig("adam", learning_rate=0.05),
    epochs=20,
    precision="float32",
)
"""


def test_third_party_family_and_dataset_export_like_ours(table_run):
    """Registered by calling `register`: trains, and exports as ours do, though the child never saw the call."""
    assert table_run.result()["test"]["accuracy"] > 0.9
    (artifact,) = export.convert(table_run, "onnx")
    assert [t["name"] for t in artifact.manifest["inputs"]] == ["features"]
    assert artifact.manifest["metadata"]["labels"] == ["setosa", "versicolor", "virginica"]


@pytest.mark.slow
def test_third_party_family_and_dataset_export_to_every_format(table_run):
    """Like ours. One or two of 37 examples are no proof of a loss: quantized formats pass, and say so."""
    made = export.convert(table_run, NAMES)
    assert {artifact.format for artifact in made} == {*NAMES}
    for artifact in (export.verify(one.path) for one in made):
        assert [t["name"] for t in artifact.manifest["inputs"]] == ["features"]
        assert artifact.manifest["metadata"]["labels"] == ["setosa", "versicolor", "virginica"]
        exact = artifact.parity["tolerance"]["snr"] is None
        assert (artifact.parity["n"], artifact.parity["enough"]) == (37, None if exact else False)


@pytest.mark.slow
def test_flattening_model_exports(tmp_path):
    """The perceptron recipe, which flattens images, through every format."""
    run = training.train("digits_mlp", {"epochs": 4}, run=tmp_path / "run")
    assert {a.format for a in export.convert(run, formats.names())} == set(NAMES)


@pytest.mark.slow
def test_mixed_precision_run_exports_in_float32(tmp_path, quick):
    """A run trained in bfloat16 is exported as float32, within tolerance of its float32 rebuild."""
    overrides = {**quick, "precision": "mixed_bfloat16", "epochs": 2}
    run = training.train("digits_resnet", overrides, run=tmp_path / "run")
    for artifact in export.convert(run, FLOATS):
        assert artifact.parity["relative"] <= 1e-4
