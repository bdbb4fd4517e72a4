"""The SavedModel as TensorFlow Serving takes it: signatures, encodings of images, warm-up requests."""

from __future__ import annotations

import io

import numpy as np
import pytest

import export
import zoo
from export.backends.tensorflow.warmup import FILE, _messages, request
from export.core.manifest import SAMPLES
from export.core.samples import read_samples
from export.formats.saved_model import SavedOptions
from export.source.features import feature_model
from zoo.common.errors import BadOption

# The same request, written by the classes of tensorflow-serving-api 2.21.0.
PUBLISHED = "322a0a280a110a036e65741a0a73657276655f7465787412130a0474657874120b0807120412020801420161"


@pytest.fixture(scope="module")
def signatures(artifacts):
    """The signatures of the digits' SavedModel."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(artifacts["saved_model"].path))
    yield loaded.signatures
    del loaded


@pytest.fixture(scope="module")
def images(artifacts):
    """The test images, and the outputs of the source."""
    return read_samples(artifacts["saved_model"].folder / SAMPLES)


def encoded(image, kind, **options):
    """Pixels (height, width, 1) as a file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image.astype("uint8")[..., 0]).convert(options.pop("mode", "L")).save(file, kind, **options)
    return file.getvalue()


def requests(folder):
    """The warm-up requests in a SavedModel: signature and inputs of each."""
    import tensorflow as tf

    for record in tf.data.TFRecordDataset(str(folder / "assets.extra" / FILE)):
        asked = _messages()["PredictionLog"].FromString(record.numpy()).predict_log.request
        tensors = {}
        for entry in asked.inputs:
            tensor = tf.make_tensor_proto(0)
            tensor.ParseFromString(entry.value)
            tensors[entry.key] = tf.constant(tf.make_ndarray(tensor))
        yield asked.model_spec, tensors


def test_warmup_requests_are_those_of_tensorflow_serving():
    """The requests are equal byte for byte."""
    assert request("net", "serve_text", {"text": [b"a"]}).hex() == PUBLISHED


def test_every_signature_is_warmed_up(artifacts, signatures):
    """Each request has the inputs of its signature and the name of the model."""
    asked = list(requests(artifacts["saved_model"].path))
    assert set(signatures) == {"serving_default", "features", "serve_bytes"}
    assert {spec.signature_name for spec, _ in asked} == set(signatures)
    for spec, inputs in asked:
        assert spec.name == "resnet_tiny"
        assert all(len(value) == 1 for value in signatures[spec.signature_name](**inputs).values())


def test_features_are_what_the_last_layer_takes(artifacts, digits_run, images):
    """The kernel and bias of the last layer turn the features into the logits."""
    from training.learning.evaluation import load_model

    runtime = export.load(artifacts["saved_model"].path)
    features = runtime.features(images["inputs"][:8])
    kernel, bias = load_model(digits_run).get_layer("logits").get_weights()
    assert features.shape == (8, len(kernel))
    np.testing.assert_allclose(features @ kernel + bias, images["logits"][:8], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("name", "width"), [("resnet_tiny", 32), ("tagger_tiny", 64), ("perceptron", None)])
def test_features_are_found_where_there_are_some(name, width):
    """A single layer has none but its input."""
    model = zoo.get(name)
    found = feature_model(model, model)
    assert (None if found is None else found.output_shape[-1]) == width


def test_bytes_are_a_fourth_of_the_traffic(variants, artifacts, images):
    """With input=uint8 the signatures for raw values take pixels as they are."""
    artifact = variants["saved_model:input=uint8"]
    runtime = export.load(artifact.path)
    assert [tensor.dtype for tensor in runtime.inputs] == ["uint8"]
    assert [t.dtype for t in export.load(artifacts["saved_model"].path).inputs] == ["float32"]
    np.testing.assert_allclose(runtime(images["inputs"][:32]), images["logits"][:32], rtol=1e-4, atol=1e-4)
    asked = {spec.signature_name: inputs for spec, inputs in requests(artifact.path)}
    assert asked["features"]["image"].dtype == "uint8"
    SavedOptions(input="uint8").check({"input": "image"})
    with pytest.raises(BadOption, match="input=uint8 applies to images"):
        SavedOptions(input="uint8").check({"input": "ids"})


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}), ("PNG", {"mode": "RGBA"}), ("GIF", {}), ("BMP", {}), ("BMP", {"mode": "P"}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"lossless": True, "mode": "RGBA"}),
    ],
)  # fmt: skip
def test_what_loses_nothing_gives_the_same_logits(signatures, images, kind, options):
    """In any encoding, in color and in gray."""
    import tensorflow as tf

    files = [encoded(image, kind, **options) for image in images["inputs"][:3]]
    found = signatures["serve_bytes"](tf.constant(files))["logits"].numpy()
    np.testing.assert_allclose(found, images["logits"][:3], rtol=1e-4, atol=1e-4)


def test_large_images_are_refused_by_their_header(signatures, images):
    """A file of a kilobyte that announces more than fits into memory is one line for the client."""
    import struct

    import tensorflow as tf

    content = bytearray(encoded(images["inputs"][0], "PNG"))
    content[16:24] = struct.pack(">II", 60_000, 50_000)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Expected an image of at most 100,000,000 pixels"):
        signatures["serve_bytes"](tf.constant([bytes(content)]))


def test_animated_webp_is_refused(signatures, images):
    """TensorFlow 2.21 decodes one beyond the end of its buffer, which ends the process that serves."""
    import tensorflow as tf
    from PIL import Image

    frames = [Image.fromarray(image.astype("uint8")[..., 0]).convert("RGB") for image in images["inputs"][:3]]
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="animated WebP"):
        signatures["serve_bytes"](tf.constant([file.getvalue()]))
    still = encoded(images["inputs"][0], "WEBP", lossless=True)
    assert signatures["serve_bytes"](tf.constant([still]))["logits"].shape == (1, 10)
