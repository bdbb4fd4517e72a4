"""Datasets by name: the digits, others that TFDS prepared with classes, labels or numbers, and names that are none."""

from __future__ import annotations

import io

import numpy as np
import pytest
from label_images import marks, pixels, prepare
from loaded_data import one_line, rows
from PIL import Image

import zoo
from training import DataConfig, ModelConfig, Recipe
from training.data.pipeline.opening import open_pipeline
from training.data.readers.loading import load_dataset
from training.datasets.digits import load_pixels
from zoo.common.errors import DataError, UnknownName


@pytest.fixture(scope="module")
def digits():
    """The digits."""
    return load_dataset(DataConfig("digits"))


def test_digits_have_three_splits(digits):
    """1,293 images train, 144 validate, 360 test."""
    assert {name: split.count for name, split in digits.splits.items()} == {
        "train": 1293,
        "validation": 144,
        "test": 360,
    }
    assert digits.labels == tuple("0123456789")
    assert digits.shape == (8, 8, 1)


def test_digits_are_those_of_scikit_learn_in_their_order(digits):
    """Every split has exactly the pixels and labels of scikit-learn, unshuffled; the last 360 are the test split."""
    import tensorflow as tf
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = np.rint(found.images * 255 / 16)
    bounds = {"train": (0, 1293), "validation": (1293, 1437), "test": (1437, 1797)}
    for name, (low, high) in bounds.items():
        images, labels = rows(digits.splits[name])
        decoded = np.stack([tf.io.decode_png(image).numpy()[..., 0] for image in images])
        np.testing.assert_array_equal(decoded, pixels[low:high])
        assert labels == found.target[low:high].tolist()


def test_digits_preprocessing_is_that_of_the_training_pixels(digits):
    """Mean and standard deviation are those of the training split, to a tenth."""
    pixels = load_pixels()[0][:1293].astype("float64")
    assert digits.preprocessing.mean[0] == pytest.approx(pixels.mean(), abs=0.1)
    assert digits.preprocessing.std[0] == pytest.approx(pixels.std(), abs=0.1)


@pytest.mark.usefixtures("offline")
def test_digits_are_prepared_offline(tmp_path):
    """The digits need no internet access: they are prepared from scikit-learn in the given folder."""
    dataset = load_dataset(DataConfig("digits", path=str(tmp_path / "data")))
    assert dataset.splits["test"].count == 360
    assert (tmp_path / "data/digits/1.0.0/dataset_info.json").is_file()
    again = load_dataset(DataConfig("digits", path=str(tmp_path / "data")))
    assert rows(again.splits["validation"])[1] == rows(dataset.splits["validation"])[1]


@pytest.mark.usefixtures("offline")
def test_known_dataset_that_is_not_prepared(tmp_path):
    """A missing TFDS dataset that cannot be downloaded is reported in one line: what to put where."""
    with pytest.raises(DataError) as error:
        load_dataset(DataConfig("mnist", path=str(tmp_path)))
    message = one_line(error)
    assert "'mnist'" in message
    assert "tfds build mnist" in message
    assert str(tmp_path / "mnist") in message
    assert not any(tmp_path.rglob("*.tfrecord*"))


@pytest.mark.parametrize(("name", "nearest"), [("mnit", "mnist"), ("digit", "digits"), ("foldr", "folder")])
def test_unknown_dataset_names_the_nearest(name, nearest, tmp_path):
    """An unknown name raises UnknownName, with the nearest names of the zoo and of TFDS."""
    with pytest.raises(UnknownName, match=f"Did you mean '{nearest}'") as error:
        load_dataset(DataConfig(name, path=str(tmp_path)))
    assert f"data.name='{name}'" in one_line(error)


@pytest.mark.parametrize("name", ["mnist:9.9.9", "mnist/nothing", "huggingface:mnist", "no such", ".."])
def test_odd_dataset_names_are_refused_in_one_line(name, tmp_path, monkeypatch):
    """A missing version, configuration or namespace raises an error of the zoo too."""
    # The client of the hub fails at once, and not after five attempts.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises((UnknownName, DataError)) as error:
        load_dataset(DataConfig(name, path=str(tmp_path)))
    one_line(error)


def test_dataset_of_other_things_is_refused(tmp_path):
    """A dataset with neither images nor texts is refused before any download."""
    with pytest.raises(DataError, match=r"images or texts with one class each.*penguins.*features") as error:
        load_dataset(DataConfig("penguins", path=str(tmp_path)))
    one_line(error)
    assert not any(tmp_path.rglob("*.tfrecord*"))


def prepare_shapes(folder, builder_name, sizes):
    """Prepare a small TFDS dataset in a folder, with a builder that is unregistered afterwards."""
    import tensorflow_datasets as tfds

    with tfds.core.registered.skip_registration():

        class Shapes(tfds.core.GeneratorBasedBuilder):
            """Image i is filled with i; even ones are flat, odd ones tall."""

            name = builder_name
            VERSION = tfds.core.Version("1.0.0")
            pkg_dir_path = None

            def _info(self):
                features = {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(names=["flat", "tall"]),
                }
                return tfds.core.DatasetInfo(
                    builder=self,
                    features=tfds.features.FeaturesDict(features),
                    supervised_keys=("image", "label"),
                    disable_shuffling=True,
                )

            def _split_generators(self, _):
                return {name: self._generate_examples(count) for name, count in sizes.items()}

            def _generate_examples(self, count):
                for i in range(count):
                    size = (12, 8) if i % 2 else (8, 12)
                    yield i, {"image": np.full((*size, 3), i, "uint8"), "label": i % 2}

    Shapes(data_dir=folder).download_and_prepare()


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    """A data_dir with two prepared TFDS datasets, with and without a validation split."""
    folder = tmp_path_factory.mktemp("tfds")
    prepare_shapes(folder, "shapes_whole", {"train": 20, "validation": 6, "test": 4})
    prepare_shapes(folder, "shapes_bare", {"train": 20})
    return folder


def test_prepared_dataset_loads_by_name(tfds_folder):
    """A prepared dataset is found by its name below data.path, with its own splits, in the stored order."""
    dataset = load_dataset(DataConfig("shapes_whole", path=str(tfds_folder)))
    assert {name: split.count for name, split in dataset.splits.items()} == {"train": 20, "validation": 6, "test": 4}
    assert dataset.labels == ("flat", "tall")
    assert dataset.shape == (0, 0, 3)
    images, labels = rows(dataset.splits["train"])
    assert labels == [i % 2 for i in range(20)]
    assert [int(np.asarray(Image.open(io.BytesIO(image)))[0, 0, 0]) for image in images] == list(range(20))


def test_end_of_train_validates_where_nothing_else_does(tfds_folder):
    """Without a validation split, the last tenth of "train" is one, and the two do not overlap."""
    dataset = load_dataset(DataConfig("shapes_bare", path=str(tfds_folder)))
    assert {name: split.count for name, split in dataset.splits.items()} == {"train": 18, "validation": 2}
    images = [Image.open(io.BytesIO(image)) for image in rows(dataset.splits["validation"])[0]]
    assert [int(np.asarray(image)[0, 0, 0]) for image in images] == [18, 19]


def test_any_multilabel_dataset_of_tfds_loads(tmp_path):
    """An image with a sequence of classes, also empty or with duplicates, is a multi-label example."""
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "tags": tfds.features.Sequence(tfds.features.ClassLabel(names=["a", "b", "c"])),
    }
    tags = [["a"], ["b", "c", "b"], [], ["c"]] * 5
    prepare(
        tmp_path,
        "small_tags",
        "1.0.0",
        features,
        {"train": [{"image": pixels(n), "tags": t} for n, t in enumerate(tags)]},
    )
    dataset = load_dataset(DataConfig("small_tags", path=str(tmp_path)))
    assert (dataset.task, dataset.labels, dataset.shape) == ("multilabel", ("a", "b", "c"), (0, 0, 3))
    assert {n: s.count for n, s in dataset.splits.items()} == {"train": 18, "validation": 2}
    assert marks(dataset, "validation") == {18: {}, 19: {"c": 1}}
    assert [marks(dataset, "train")[n] for n in range(4)] == [{"a": 1}, {"b": 1, "c": 1}, {}, {"c": 1}]


def test_tfds_numbers_are_a_regression(tmp_path):
    """An image with a number is a dataset of one target."""
    import tensorflow_datasets as tfds

    features = {"image": tfds.features.Image(shape=(20, 24, 3)), "gray": tfds.features.Scalar(np.float32)}
    rows = [{"image": pixels(n), "gray": np.float32(n / 2)} for n in range(20)]
    prepare(tmp_path, "small_gray", "1.0.0", features, {"train": rows})
    dataset = load_dataset(DataConfig("small_gray", path=str(tmp_path)))
    assert (dataset.task, dataset.labels) == ("regress", ("gray",))
    made = Recipe("t", ModelConfig("resnet_tiny"), DataConfig("small_gray", path=str(tmp_path)))
    pipeline = open_pipeline(made, zoo.spec("resnet_tiny"))
    assert pipeline.dataset.scale.mean == pytest.approx((np.arange(18).mean() / 2,))
    assert pipeline.raw("validation", 2)[1].tolist() == [[9.0], [9.5]]
