"""An export decodes the images that it compares artifacts on or calibrates with, and no others."""

from __future__ import annotations

import collections

import numpy as np
import pytest

import export.source.registry_source as registry_source
import training
import training.data.pipeline.encoding as encoding
import training.data.readers.images.checks as reader
from export.source.request import RegistryRequest
from export.source.run_source import open_run_source
from training import DataConfig, ModelConfig, Recipe

EACH, BATCH = 150, 8
TRAINING, TEST = 240, 30


@pytest.fixture(scope="module")
def images(tmp_path_factory, write_images):
    """A folder of JPEGs of two classes."""
    return write_images(tmp_path_factory.mktemp("images"), EACH)


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    """A run on these images."""
    data = DataConfig("folder", path=str(images), image_size=(12, 12), batch_size=BATCH, normalize="channel")
    recipe = Recipe("t", ModelConfig("mlp_tiny"), data, epochs=1).override(**{"log.every": 0, "log.misclassified": 0})
    return training.train(recipe, run=tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def counts(monkeypatch):
    """Count images "decoded" and images "checked" by the reader."""
    import tensorflow as tf

    found = collections.Counter()

    def count(name, value):
        found[name] += 1
        return value

    def counted(decode):
        def call(encoded, *arguments, **options):
            encoded = tf.numpy_function(lambda v: count("decoded", v), [encoded], tf.string)
            return decode(tf.ensure_shape(encoded, ()), *arguments, **options)

        return call

    checks = reader.read_facts
    for module in (encoding, registry_source):
        monkeypatch.setattr(module, "decode", counted(module.decode))
    monkeypatch.setattr(reader, "read_facts", lambda path, limit: count("checked", checks(path, limit)))
    return found


def test_a_run_decodes_samples_and_calibration_data(run, counts, tmp_path):
    """A batch to verify the rebuild, the samples, and 200 images once a format is calibrated; statistics are saved."""
    source, samples = open_run_source(run, tmp_path)
    assert len(samples["inputs"]) == TEST
    assert counts["decoded"] == counts["checked"] == BATCH + TEST
    assert source.example.shape == (1, 12, 12, 3)
    assert counts["decoded"] == BATCH + TEST + 1
    assert source.calibration.shape == (200, 12, 12, 3)
    assert counts["decoded"] == BATCH + TEST + 1 + 200
    # The first image is among the 200, and is checked once.
    assert counts["checked"] == BATCH + TEST + 200


def test_a_compression_can_train_and_checks_all(run, counts, tmp_path):
    """The control: with a compression every image is checked before anything else happens."""

    class Reached(Exception):
        pass

    def compress(model, pipeline):
        raise Reached

    with pytest.raises(Reached):
        open_run_source(run, tmp_path, compress)
    assert counts["checked"] == 2 * EACH


@pytest.mark.slow
def test_the_samples_are_those_of_a_pipeline_that_checks_all(run, tmp_path):
    """Samples and calibration data do not depend on when images are decoded."""
    from training.data.pipeline.opening import open_pipeline
    from zoo import spec

    source, samples = open_run_source(run, tmp_path)
    whole = open_pipeline(run.recipe, spec("mlp_tiny"))
    inputs, labels = whole.raw("test", 1000)
    np.testing.assert_array_equal(samples["inputs"], inputs)
    np.testing.assert_array_equal(samples["labels"], labels)
    np.testing.assert_array_equal(source.calibration, whole.raw("train", 200)[0])
    assert source.metadata["preprocessing"]["mean"] == list(whole.preprocessing.mean)


@pytest.mark.slow
def test_a_registry_model_decodes_calibration_data_when_asked(images, counts, tmp_path):
    """The images to compare on at once, the first to calibrate with alone, all of them for a calibrated format."""
    request = RegistryRequest("resnet_tiny", "random", str(images))
    source, samples = registry_source.open_registry_source(request, tmp_path)
    compared = len(samples["inputs"])
    assert counts["decoded"] == compared == 64
    example = source.example
    assert counts["decoded"] == compared + 1
    assert len(source.calibration) == 200
    assert counts["decoded"] == compared + 201
    np.testing.assert_array_equal(example, source.calibration[:1])
