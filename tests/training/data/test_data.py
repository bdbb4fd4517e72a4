"""Datasets: the digits, TFDS by name offline, folders of images, decoding and scaling."""

from __future__ import annotations

import io
import socket

import numpy as np
import pytest
from PIL import Image

import zoo
from training import DataConfig, ModelConfig, Recipe
from training.common.preprocess import decode, normalize
from training.data.pipeline.opening import open_pipeline
from training.data.readers.images.checks import ImageChecks
from training.data.readers.loading import load_dataset
from training.datasets.digits import load_pixels
from zoo import PreprocessingConfig
from zoo.common.errors import BadOption, DataError, UnknownName

FORMATS = {".jpg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".gif": "GIF", ".webp": "WEBP"}


def one_line(error):
    """Return the message, and check that it has one line."""
    assert "\n" not in str(error.value)
    return str(error.value)


def rows(split):
    """Return the examples of a split as (list of x, list of labels)."""
    x, y = zip(*split.examples.as_numpy_iterator(), strict=True)
    return list(x), [int(label) for label in y]


def noise(height=12, width=16, channels=3, seed=0):
    """Return smooth random pixels."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, channels)).astype("uint8")
    image = Image.fromarray(small.squeeze()).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(height, width, channels)


def save(path, pixels):
    """Write pixels in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze()).save(path, FORMATS[path.suffix])


def encoded(pixels, kind="PNG"):
    """Return pixels as the bytes of a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, kind)
    return buffer.getvalue()


def fill(root, classes=("cat", "dog"), count=10, suffixes=(".png",)):
    """Write images of different sizes into a folder for each class."""
    for number, name in enumerate(classes):
        for i in range(count):
            suffix = suffixes[i % len(suffixes)]
            save(root / name / f"{i:02d}{suffix}", noise(10 + i, 20 - i, seed=100 * number + i))
    return root


def load_folder(path, **options):
    """Load a folder dataset."""
    return load_dataset(DataConfig("folder", path=str(path), **options))


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


@pytest.fixture
def offline(monkeypatch):
    """Disable name resolution and proxies."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def refuse(*_, **__):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


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


def test_folder_splits_each_class(tmp_path):
    """Subfolders are the classes; 80% of each train, 10% validate, 10% test; every image is in one split."""
    dataset = load_folder(fill(tmp_path, ("dog", "cat", "ape"), suffixes=(".jpg", ".png", ".bmp", ".gif", ".webp")))
    assert dataset.labels == ("ape", "cat", "dog")
    assert {name: split.count for name, split in dataset.splits.items()} == {"train": 24, "validation": 3, "test": 3}
    for split, each in (("train", 8), ("validation", 1), ("test", 1)):
        assert np.bincount(rows(dataset.splits[split])[1]).tolist() == [each] * 3
    seen = [image for split in dataset.splits.values() for image in rows(split)[0]]
    assert sorted(seen) == sorted(p.read_bytes() for p in tmp_path.rglob("*.*"))


def test_folder_splits_by_a_fixed_shuffle(tmp_path):
    """The same files give the same splits in every location, and the splits are shuffled."""
    one, two = (load_folder(fill(tmp_path / place, count=20)) for place in ("a", "b"))
    for name in one.splits:
        assert rows(one.splits[name]) == rows(two.splits[name])
    first = [p.read_bytes() for p in sorted((tmp_path / "a/cat").iterdir())[:16]]
    assert set(rows(one.splits["train"])[0][:16]) != set(first)


def test_folder_with_splits_of_its_own(tmp_path):
    """train/, validation/ and test/ are used as splits."""
    for place, count in (("train", 5), ("val", 3), ("test", 2)):
        fill(tmp_path / place, count=count)
    dataset = load_folder(tmp_path)
    assert {name: split.count for name, split in dataset.splits.items()} == {"train": 10, "validation": 6, "test": 4}
    files = {p.read_bytes() for p in (tmp_path / "test").rglob("*.png")}
    assert set(rows(dataset.splits["test"])[0]) == files


def test_folder_with_train_and_test_only(tmp_path):
    """Without validation/, a tenth of train/ validates, and test/ stays complete."""
    fill(tmp_path / "train", count=20)
    fill(tmp_path / "test", count=3)
    dataset = load_folder(tmp_path)
    assert {name: split.count for name, split in dataset.splits.items()} == {"train": 36, "validation": 4, "test": 6}


def test_folder_ignores_other_files(tmp_path):
    """Other files and hidden folders next to the images are ignored."""
    fill(tmp_path)
    (tmp_path / "cat/notes.txt").write_text("tabby")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "README.md").write_text("cats and dogs")
    dataset = load_folder(tmp_path)
    assert dataset.labels == ("cat", "dog")
    assert sum(split.count for split in dataset.splits.values()) == 20


def test_folder_is_missing(tmp_path):
    """A missing folder, or none given, is reported with the option to set."""
    for path in ("", tmp_path / "nowhere"):
        with pytest.raises(DataError, match=r"--set data\.path=") as error:
            load_folder(path)
        one_line(error)


@pytest.mark.parametrize("classes", [(), ("cat",)])
def test_folder_needs_two_classes(tmp_path, classes):
    """A folder without classes, or with a single one, is refused."""
    fill(tmp_path, classes)
    with pytest.raises(DataError, match=f"at least two sub-folders.* with {len(classes)}") as error:
        load_folder(tmp_path)
    one_line(error)


def test_folder_names_a_class_without_images(tmp_path):
    """An empty class is named."""
    fill(tmp_path)
    (tmp_path / "cow").mkdir()
    (tmp_path / "cow/list.txt").write_text("none yet")
    with pytest.raises(DataError, match="none in 'cow'") as error:
        load_folder(tmp_path)
    one_line(error)


def test_folder_splits_have_the_same_classes(tmp_path):
    """A class that a split lacks is named, with the split."""
    fill(tmp_path / "train", ("ape", "cat", "dog"))
    fill(tmp_path / "validation", ("ape", "cat", "dog"))
    fill(tmp_path / "test", ("ape", "cat"))
    with pytest.raises(DataError, match=r"test differs in \['dog'\]") as error:
        load_folder(tmp_path)
    one_line(error)


def corrupt(root):
    """Add four undecodable files to 20 good ones."""
    good = encoded(noise(64, 64), "JPEG")
    bad = {
        "cat/cut.jpg": good[: len(good) // 2],
        "cat/empty.png": b"",
        "dog/text.jpg": b"this is no image",
        "dog/header.png": encoded(noise())[:20],
    }
    for name, content in bad.items():
        (root / name).write_bytes(content)
    return sorted(root / name for name in bad)


def test_images_that_cannot_be_decoded_stop(tmp_path):
    """Truncated, empty and unsupported files are counted and named, with the option that skips them."""
    bad = corrupt(fill(tmp_path))
    with pytest.raises(DataError) as error:
        load_folder(tmp_path)
    message = one_line(error)
    assert "4 of 24" in message
    assert all(str(path.relative_to(tmp_path)) in message for path in bad)
    assert "--set data.skip_bad=true" in message


def test_images_that_cannot_be_decoded_are_left_out_on_request(tmp_path):
    """With data.skip_bad, exactly the good ones remain."""
    fill(tmp_path)
    good = sorted(p.read_bytes() for p in tmp_path.rglob("*.png"))
    corrupt(tmp_path)
    dataset = load_folder(tmp_path, skip_bad=True)
    assert sorted(image for split in dataset.splits.values() for image in rows(split)[0]) == good


def test_checks_find_each_once(tmp_path):
    """The checks name exactly the damaged files, in the given order."""
    bad = corrupt(fill(tmp_path))
    assert list(ImageChecks(0).bad(sorted(p for p in tmp_path.rglob("*.*")))) == bad


def test_a_split_with_nothing_left_is_refused(tmp_path):
    """Skipping every image of a split is an error, not an empty split."""
    fill(tmp_path / "train")
    fill(tmp_path / "test", count=1)
    for path in (tmp_path / "test").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none left in the test split"):
        load_folder(tmp_path, skip_bad=True)


@pytest.mark.parametrize("channels", [1, 3])
def test_decode_is_exact_where_the_size_fits(channels):
    """An image of the right size keeps its exact pixels."""
    pixels = noise(16, 16, channels)
    found = decode(encoded(pixels), (16, 16, channels), PreprocessingConfig()).numpy()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP"])
@pytest.mark.parametrize("channels", [1, 3])
def test_decode_takes_every_format_in_gray_and_color(kind, channels):
    """A color image of any supported format decodes to 1 or 3 channels."""
    found = decode(encoded(noise(16, 16), kind), (8, 8, channels), PreprocessingConfig())
    assert found.shape == (8, 8, channels)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
@pytest.mark.parametrize("channels", [1, 3])
def test_decode_takes_every_kind_of_pixel(mode, channels):
    """Grayscale, palette, alpha and CMYK images decode to the requested channels."""
    image = Image.fromarray(noise(16, 16)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    assert decode(buffer.getvalue(), (8, 8, channels), PreprocessingConfig()).shape == (8, 8, channels)


def test_decode_takes_webp_with_alpha():
    """A WebP image with an alpha channel, which TensorFlow does not drop, is decoded or reported as bad."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 4)).astype("uint8"))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP")
    assert decode(buffer.getvalue(), (8, 8, 3), PreprocessingConfig()).shape == (8, 8, 3)


def by_pillow(pixels, shape, crop):
    """Resize the shorter side to size / crop and crop the center, with Pillow."""
    height, width = shape
    scale = max(height / crop / pixels.shape[0], width / crop / pixels.shape[1])
    size = round(pixels.shape[0] * scale), round(pixels.shape[1] * scale)
    resized = np.asarray(Image.fromarray(pixels.squeeze()).resize(size[::-1], Image.Resampling.BILINEAR))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return resized[top : top + height, left : left + width].reshape(height, width, -1)


@pytest.mark.parametrize("crop", [1.0, 0.875])
@pytest.mark.parametrize("size", [(64, 96), (96, 64), (20, 24), (200, 50)])
@pytest.mark.parametrize("channels", [1, 3])
def test_decode_resizes_and_crops_as_pillow_does(size, crop, channels):
    """The shorter side is resized with antialiasing and the center is cropped: within two levels of Pillow."""
    pixels = noise(*size, channels)
    found = decode(encoded(pixels), (32, 32, channels), PreprocessingConfig(crop=crop)).numpy()
    assert np.abs(found - by_pillow(pixels, (32, 32), crop)).max() <= 2


def test_decode_gives_whole_levels():
    """The resized image is rounded and clipped, so that an 8-bit input can hold it."""
    pixels = np.kron(np.random.default_rng(0).integers(0, 2, (8, 8, 1)), np.full((9, 9, 1), 255)).astype("uint8")
    found = decode(encoded(pixels), (16, 16, 1), PreprocessingConfig(interpolation="bicubic")).numpy()
    np.testing.assert_array_equal(found, np.rint(found))
    assert found.min() >= 0
    assert found.max() <= 255


def test_decode_crops_the_center():
    """The middle of a wide image remains."""
    pixels = np.repeat(np.arange(0, 60, dtype="uint8")[None, :, None], 20, axis=0)
    found = decode(encoded(pixels), (20, 20, 1), PreprocessingConfig()).numpy()
    np.testing.assert_array_equal(found[0, :, 0], np.arange(20, 40))


@pytest.mark.parametrize(
    ("mean", "std"), [((0.0,), (1.0,)), ((78.0,), (95.7,)), ((1.0, 2.0, 3.0), (4.0,)), ((5.0,), (1.0, 2.0, 3.0))]
)
def test_normalize_is_minus_mean_over_std(mean, std):
    """(x - mean) / std, by channel or for all, in float32."""
    x = noise(5, 7)
    found = normalize(x, PreprocessingConfig(mean, std)).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, (x.astype("float64") - mean) / std, rtol=1e-5, atol=1e-5)


def test_preprocessing_checks_its_channels():
    """Three means do not fit one channel."""
    with pytest.raises(BadOption, match="must have 1 number for data of 1 channels"):
        PreprocessingConfig(mean=(1.0, 2.0, 3.0)).check(1)


REVIEWS = {"neg": ["What a bore.", "Never again!"], "pos": ["A joy, from start to end.", "See it. Twice."]}


def write_texts(root, classes=("poem", "prose"), count=10):
    """Write short texts into a folder for each class."""
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (root / name / f"{i:02d}.txt").write_text(f"{name} number {i}, größer\n", encoding="utf-8")
    return root


def texts(split):
    """Return the texts of a split with their labels."""
    return [(x.decode(), int(y)) for x, y in split.examples.as_numpy_iterator()]


def test_folder_of_texts(tmp_path):
    """Subfolders are the classes, split like folders of images; the content is text in UTF-8."""
    dataset = load_dataset(DataConfig("text_folder", path=str(write_texts(tmp_path))))
    assert (dataset.labels, dataset.shape, dataset.task) == (("poem", "prose"), (), "classify")
    assert {name: split.count for name, split in dataset.splits.items()} == {"train": 16, "validation": 2, "test": 2}
    found = sorted(pair for split in dataset.splits.values() for pair in texts(split))
    assert found == sorted(
        (f"{name} number {i}, größer\n", number) for number, name in enumerate(dataset.labels) for i in range(10)
    )


def test_folder_of_texts_with_splits(tmp_path):
    """train/ and test/ are used as splits, a tenth of train/ validates; fractions are then refused."""
    write_texts(tmp_path / "train")
    write_texts(tmp_path / "test", count=3)
    dataset = load_dataset(DataConfig("text_folder", path=str(tmp_path)))
    assert {name: split.count for name, split in dataset.splits.items()} == {"train": 18, "validation": 2, "test": 6}
    assert dataset.options == ("encoding",)


def test_bad_texts_stop(tmp_path):
    """Files that are no text are counted and named, and skipped on request."""
    write_texts(tmp_path)
    (tmp_path / "poem/03.txt").write_bytes(bytes(range(256)))
    (tmp_path / "prose/07.txt").write_bytes(b"\0\0")
    with pytest.raises(DataError) as error:
        load_dataset(DataConfig("text_folder", path=str(tmp_path)))
    message = one_line(error)
    assert "2 of 20" in message
    assert "poem/03.txt" in message
    assert "prose/07.txt" in message
    assert "--set data.skip_bad=true" in message
    dataset = load_dataset(DataConfig("text_folder", path=str(tmp_path), skip_bad=True))
    assert sum(split.count for split in dataset.splits.values()) == 18


def test_texts_in_other_encodings_and_without_words(tmp_path):
    """UTF-16 and cp1252 are read as Python reads them; a text without a word is unknown, or skipped. Both are said."""
    write_texts(tmp_path)
    (tmp_path / "poem/03.txt").write_bytes("Grüße – 5 €".encode("cp1252"))
    (tmp_path / "poem/04.txt").write_bytes("Grüße – 6 €".encode("utf-16"))
    (tmp_path / "prose/07.txt").write_text(" :-) \n")
    dataset = load_dataset(DataConfig("text_folder", path=str(tmp_path)))
    found = {text for split in dataset.splits.values() for text, _ in texts(split)}
    assert {"Grüße – 5 €", "Grüße – 6 €", " :-) \n"} < found
    assert [note for note in dataset.notes if "poem/03.txt" in note and "cp1252" in note]
    assert [note for note in dataset.notes if "prose/07.txt" in note and "unknown" in note]
    dataset = load_dataset(DataConfig("text_folder", path=str(tmp_path), skip_bad=True))
    assert sum(split.count for split in dataset.splits.values()) == 19
    assert [note for note in dataset.notes if "prose/07.txt" in note and "Left out" in note]
    with pytest.raises(DataError, match="texts in ascii"):
        load_dataset(DataConfig("text_folder", path=str(tmp_path), encoding="ascii"))


def test_missing_folder_of_texts(tmp_path):
    """A missing folder, missing classes and a class without texts are refused."""
    missing = ("", tmp_path / "none")
    for path, message in (*((p, "texts per class") for p in missing), (tmp_path, "two sub-folders")):
        with pytest.raises(DataError, match=message) as error:
            load_dataset(DataConfig("text_folder", path=str(path)))
        one_line(error)


def test_imdb_is_read_from_the_folder_of_its_archive(tmp_path):
    """aclImdb has neg and pos; unlabeled reviews are ignored, and the test reviews are those of test/."""
    for split in ("train", "test"):
        for name, reviews in REVIEWS.items():
            (tmp_path / f"aclImdb/{split}/{name}").mkdir(parents=True)
            for i, review in enumerate(reviews * 5):
                (tmp_path / f"aclImdb/{split}/{name}/{i}_9.txt").write_text(f"{review} {split} {i}")
    (tmp_path / "aclImdb/train/unsup").mkdir()
    (tmp_path / "aclImdb/train/unsup/0_0.txt").write_text("Who knows?")
    for path in (tmp_path, tmp_path / "aclImdb"):
        dataset = load_dataset(DataConfig("imdb", path=str(path)))
        assert dataset.labels == ("neg", "pos")
        assert {n: s.count for n, s in dataset.splits.items()} == {"train": 18, "validation": 2, "test": 20}
        assert all(" test " in text for text, _ in texts(dataset.splits["test"]))
        assert all(label == ("joy" in text or "Twice" in text) for text, label in texts(dataset.splits["train"]))


@pytest.mark.usefixtures("offline")
def test_imdb_that_is_missing(tmp_path):
    """One line names what to prepare."""
    with pytest.raises(DataError, match=r"tfds build imdb_reviews") as error:
        load_dataset(DataConfig("imdb", path=str(tmp_path)))
    one_line(error)


def prepare_reviews(folder, builder_name, config, keys, names, more):
    """Prepare a small TFDS dataset of texts in a folder, with a builder that is unregistered afterwards."""
    import tensorflow_datasets as tfds

    with tfds.core.registered.skip_registration():

        class Reviews(tfds.core.GeneratorBasedBuilder):
            """Reviews with a class each."""

            name = builder_name
            VERSION = tfds.core.Version("1.0.0")
            pkg_dir_path = None
            BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config, version="1.0.0")] if config else []

            def _info(self):
                features = {key: tfds.features.Text() for key in (keys[0], *more)}
                features |= {keys[1]: tfds.features.ClassLabel(names=list(names))}
                return tfds.core.DatasetInfo(
                    builder=self,
                    features=tfds.features.FeaturesDict(features),
                    supervised_keys=keys,
                    disable_shuffling=True,
                )

            def _split_generators(self, _):
                return {"train": self._generate_examples(10), "test": self._generate_examples(2)}

            def _generate_examples(self, times):
                pairs = [(text, label) for label, reviews in enumerate(REVIEWS.values()) for text in reviews]
                for i, (text, label) in enumerate(pairs * times):
                    yield i, {keys[0]: text, keys[1]: label} | dict.fromkeys(more, "of no use")

    Reviews(data_dir=folder).download_and_prepare()


NEWS = ("World", "Sports", "Business", "Sci/Tech")


@pytest.mark.parametrize(
    ("name", "builder", "config", "keys", "names", "more"),
    [
        ("imdb", "imdb_reviews", "plain_text", ("text", "label"), ("neg", "pos"), ()),
        ("imdb_reviews", "imdb_reviews", "plain_text", ("text", "label"), ("neg", "pos"), ()),
        ("ag_news_subset", "ag_news_subset", None, ("description", "label"), NEWS, ("title",)),
        ("of_nobody", "of_nobody", None, ("words", "mood"), ("sad", "glad"), ()),
    ],
)
def test_prepared_texts_of_tfds(name, builder, config, keys, names, more, tmp_path):
    """Texts that TFDS prepared are loaded by name: the zoo's own, listed ones and any other."""
    prepare_reviews(tmp_path, builder, config, keys, names, more)
    dataset = load_dataset(DataConfig(name, path=str(tmp_path)))
    assert (dataset.labels, dataset.shape, dataset.task) == (names, (), "classify")
    assert {n: s.count for n, s in dataset.splits.items()} == {"train": 36, "validation": 4, "test": 8}
    wanted = [(text, number) for number, reviews in enumerate(REVIEWS.values()) for text in reviews]
    assert texts(dataset.splits["test"]) == wanted * 2
    assert dataset.text is not None


def table_of_texts(tmp_path, rows, names=("review", "mood")):
    """Write a CSV file of texts and return a configuration."""
    import csv

    with open(tmp_path / "texts.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])
    return {"name": "text_table", "path": str(tmp_path / "texts.csv")}


def test_table_of_texts(tmp_path):
    """A column of texts, quoted and over several lines, has classes or numbers as targets."""
    rows = [
        (f'"{text}", he said\n{i}', name) for name, reviews in REVIEWS.items() for text in reviews for i in range(5)
    ]
    dataset = load_dataset(DataConfig(**table_of_texts(tmp_path, rows)))
    assert (dataset.labels, dataset.task) == (("neg", "pos"), "classify")
    found = sorted((text, dataset.labels[n]) for split in dataset.splits.values() for text, n in texts(split))
    assert found == sorted(rows)
    scored = [(text, i / 2) for i, (text, _) in enumerate(rows)]
    dataset = load_dataset(DataConfig(**table_of_texts(tmp_path, scored)))
    assert (dataset.labels, dataset.task) == (("mood",), "regress")


def test_table_of_texts_needs_one_column(tmp_path):
    """With several columns, an option names the text column; an empty text is said with its row."""
    rows = [(i, text, name) for name, reviews in REVIEWS.items() for i, text in enumerate(reviews * 3)]
    config = table_of_texts(tmp_path, rows, ("id", "review", "mood"))
    with pytest.raises(DataError, match=r"one column of texts. Received: id, review") as error:
        load_dataset(DataConfig(**config))
    one_line(error)
    assert load_dataset(DataConfig(**config, columns=("review",))).splits["train"].count == 10
    config = table_of_texts(tmp_path, [*rows[:3], (3, " ", "neg"), *rows[3:]], ("id", "review", "mood"))
    (note,) = (note for note in load_dataset(DataConfig(**config, columns=("review",))).notes if "row 4 ''" in note)
    assert "learned as unknown" in note
    skipped = load_dataset(DataConfig(**config, columns=("review",), skip_bad=True))
    assert sum(split.count for split in skipped.splits.values()) == len(rows)


def test_folder_obeys_fractions_and_seed(tmp_path):
    """The splits have halves and quarters of each class; existing splits refuse fractions."""
    fill(tmp_path / "open")
    dataset = load_folder(tmp_path / "open", split_fractions=(0.6, 0.2, 0.2), split_seed=3)
    assert {name: split.count for name, split in dataset.splits.items()} == {"train": 12, "validation": 4, "test": 4}
    other = load_folder(tmp_path / "open", split_fractions=(0.6, 0.2, 0.2), split_seed=4)
    assert sorted(rows(dataset.splits["test"])[0]) != sorted(rows(other.splits["test"])[0])
    assert dataset.options == ("split_fractions", "split_seed", "stratify", "near_duplicates")
    fill(tmp_path / "split/train")
    assert load_folder(tmp_path / "split").options == ("near_duplicates",)


def image_pipeline(path, **options):
    """Return the pipeline of a folder of images at 12x12 pixels."""
    config = DataConfig("folder", path=str(path), image_size=(12, 12), channels=3, **options)
    return open_pipeline(Recipe("t", ModelConfig("mlp_tiny"), config), zoo.spec("mlp_tiny"))


@pytest.mark.parametrize("method", ["minmax", "zscore", "channel"])
def test_statistics_of_images_in_files_are_those_of_numpy(tmp_path, method, monkeypatch):
    """Statistics are computed in batches, and equal NumPy's over all training pixels in float64."""
    import training.data.pipeline.statistics as statistics

    fill(tmp_path)
    monkeypatch.setattr(statistics, "VALUES", 3 * 12 * 12 * 3)
    pipeline = image_pipeline(tmp_path, normalize=method)
    pixels = pipeline.raw("train", 1000)[0].astype("float64")
    axes = (0, 1, 2) if method == "channel" else None
    mean, std = (pixels.mean(axes), pixels.std(axes)) if method != "minmax" else (pixels.min(), np.ptp(pixels))
    np.testing.assert_allclose(pipeline.preprocessing.mean, np.atleast_1d(mean), rtol=1e-12)
    np.testing.assert_allclose(pipeline.preprocessing.std, np.atleast_1d(std), rtol=1e-12)
    assert len(pipeline.preprocessing.mean) == (3 if method == "channel" else 1)
    assert image_pipeline(tmp_path).preprocessing == zoo.spec("mlp_tiny").preprocessing


def test_validation_and_test_images_do_not_change_statistics(tmp_path):
    """Validation and test images do not change the preprocessing config; a training image does."""
    fill(tmp_path)
    before = image_pipeline(tmp_path, normalize="channel")
    for split, same in (("validation", True), ("test", True), ("train", False)):
        contents = set(rows(before.dataset.splits[split])[0])
        for file in (p for p in tmp_path.rglob("*.png") if p.read_bytes() in contents):
            save(file, np.full((9, 9, 3), 255, "uint8"))
        assert (image_pipeline(tmp_path, normalize="channel").preprocessing == before.preprocessing) == same
