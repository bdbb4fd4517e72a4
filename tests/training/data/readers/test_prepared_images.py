"""MNIST, Fashion-MNIST and CIFAR in the files that TFDS prepares, made small."""

from __future__ import annotations

import numpy as np
import pytest

import training
from training import DataConfig
from training.data.readers.loading import load_dataset

# Version, shape and classes as in TFDS, and the other features of an example.
PREPARED = {
    "mnist": ("3.0.1", (28, 28, 1), 10, ()),
    "fashion_mnist": ("3.0.1", (28, 28, 1), 10, ()),
    "cifar10": ("3.0.2", (32, 32, 3), 10, ("id",)),
    "cifar100": ("3.0.2", (32, 32, 3), 100, ("id", "coarse_label")),
}


def prepare(folder, name):
    """Write 30 training and 6 test images of noise in the files that TFDS prepares under a name."""
    import tensorflow_datasets as tfds

    version, shape, classes, more = PREPARED[name]
    features = {
        "image": tfds.features.Image(shape=shape),
        "label": tfds.features.ClassLabel(num_classes=classes),
        "id": tfds.features.Text(),
        "coarse_label": tfds.features.ClassLabel(num_classes=20),
    }
    with tfds.core.registered.skip_registration():

        class Small(tfds.core.GeneratorBasedBuilder):
            """Noise."""

            VERSION = tfds.core.Version(version)
            pkg_dir_path = None

            def _info(self):
                used = {key: value for key, value in features.items() if key in ("image", "label", *more)}
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict(used), supervised_keys=("image", "label")
                )

            def _split_generators(self, _):
                return {"train": self._generate_examples(0, 30), "test": self._generate_examples(30, 36)}

            def _generate_examples(self, low, high):
                for i in range(low, high):
                    known = {"id": str(i), "coarse_label": i % 20}
                    image = np.random.default_rng(i).integers(0, 256, shape).astype("uint8")
                    yield i, {"image": image, "label": i % classes} | {key: known[key] for key in more}

    Small.name = name
    Small(data_dir=folder).download_and_prepare()


@pytest.mark.parametrize("name", PREPARED)
def test_small_datasets_of_tfds_are_read(name, tmp_path):
    """A dataset that TFDS prepared elsewhere has its images, labels and splits, and the zoo's preprocessing."""
    import tensorflow as tf

    prepare(tmp_path, name)
    dataset = load_dataset(DataConfig(name, path=str(tmp_path)))
    _, shape, classes, _ = PREPARED[name]
    assert {split: part.count for split, part in dataset.splits.items()} == {"train": 27, "validation": 3, "test": 6}
    assert (dataset.shape, len(dataset.labels)) == (shape, classes)
    dataset.preprocessing.check(shape[-1])
    assert 0.1 < dataset.preprocessing.mean[0] / 255 < 0.6
    content, label = next(iter(dataset.splits["test"].examples))
    pixels = tf.io.decode_png(content).numpy()
    known = [i for i in range(30, 36) if np.array_equal(np.random.default_rng(i).integers(0, 256, shape), pixels)]
    assert [i % classes for i in known] == [int(label)]


@pytest.mark.slow
def test_prepared_cifar_trains(tmp_path):
    """A model trains on it with CIFAR's own augmentation."""
    prepare(tmp_path, "cifar10")
    changes = {
        "data.name": "cifar10", "data.path": str(tmp_path), "data.batch_size": 8, "model.name": "resnet_tiny",
        "epochs": 1, "schedule.warmup_epochs": 0, "data.augment.flip": True, "data.augment.pad_crop": 4,
        "data.augment.shift": 0, "data.augment.rotate": 0, "data.augment.zoom": 0,
    }  # fmt: skip
    result = training.train("digits_resnet", changes, run=tmp_path / "run").result()
    assert result["preprocessing"]["mean"] == [125.3, 123.0, 113.9]
    assert result["test"]["examples"] == 6
