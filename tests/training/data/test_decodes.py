"""How many images are decoded and files are read: all for training, only the samples' for a run, none for labels."""

from __future__ import annotations

import collections
import io

import numpy as np
import pytest

import training.data.pipeline.encoding as encoding
import training.data.readers.images.checks as images_module
import training.data.readers.text_folders as texts_module
import zoo
from training import DataConfig, ModelConfig, Recipe, Run
from training.common.registries import datasets
from training.data.dataset import Dataset, in_memory_split, register_dataset
from training.data.pipeline.opening import open_pipeline, training_statistics
from training.data.readers.loading import load_dataset, open_dataset
from training.data.readers.text_folders import as_text
from training.data.readers.tfds import from_builder
from training.learning.evaluation import open_data
from training.learning.losses import class_weights
from training.recipe.config import LossConfig
from zoo.common.errors import DataError, RunError
from zoo.specs.text import TextConfig

EACH = 20  # images or texts of each of two classes
SPLITS = {"train": 32, "validation": 4, "test": 4}


@pytest.fixture
def images(tmp_path, write_images):
    """A folder of JPEGs of two classes."""
    return write_images(tmp_path / "images", EACH)


@pytest.fixture
def texts(tmp_path):
    """A folder of texts of two classes."""
    for name in ("poem", "prose"):
        (tmp_path / "texts" / name).mkdir(parents=True)
        for i in range(EACH):
            (tmp_path / "texts" / name / f"{i:02d}.txt").write_text(f"{name} number {i}, größer\n", encoding="utf-8")
    return tmp_path / "texts"


@pytest.fixture
def counts(monkeypatch):
    """Count "decoded" images of the pipeline, images "checked" by the reader, and "read" files of either."""
    import tensorflow as tf

    found = collections.Counter()

    def count(name, value):
        found[name] += 1
        return value

    def counted(name, function):
        def call(value, *arguments, **options):
            value = tf.ensure_shape(tf.numpy_function(lambda v: count(name, v), [value], tf.string), ())
            return function(value, *arguments, **options)

        return call

    monkeypatch.setattr(encoding, "decode", counted("decoded", encoding.decode))
    monkeypatch.setattr(tf.io, "read_file", counted("read", tf.io.read_file))
    checks, image_of, text_of = images_module.read_facts, images_module.read_image, texts_module.read_text
    monkeypatch.setattr(images_module, "read_facts", lambda path, limit: count("checked", checks(path, limit)))
    monkeypatch.setattr(images_module, "read_image", lambda path: count("read", image_of(path)))
    monkeypatch.setattr(texts_module, "read_text", lambda path: count("read", text_of(path)))
    return found


def recipe(name, path, **options):
    """Return a recipe for a folder of images or texts."""
    if name == "text_folder":
        data = DataConfig(name, path=str(path), length=(6,), batch_size=4, **options)
        return Recipe("t", ModelConfig("encoder_tiny"), data)
    data = DataConfig(name, path=str(path), image_size=(12, 12), channels=3, batch_size=4, **options)
    return Recipe("t", ModelConfig("mlp_tiny"), data)


def opened(made):
    """Return the pipeline of a recipe as training opens it."""
    return open_pipeline(made, zoo.spec(made.model.name))


def run_of(made, place):
    """Return a run as training begins it."""
    pipeline = opened(made)
    return Run.create(made, place, pipeline.text, training_statistics(pipeline))


def arrays(values):
    """Return the arrays of examples or batches in a fixed order."""
    import tensorflow as tf

    return [np.asarray(t) for t in tf.nest.flatten(values)]


def assert_same(one, two):
    """Fail unless all arrays are equal to the bit."""
    one, two = arrays(one), arrays(two)
    assert len(one) == len(two) > 0
    for a, b in zip(one, two, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_images_of_a_run_are_decoded_as_they_are_asked_for(images, tmp_path, counts):
    """Opening decodes none, samples cost one decoding each, statistics are the run's; training decodes all."""
    made = recipe("folder", images, normalize="channel")
    run = run_of(made, tmp_path / "run")
    # The control: training checks every image and computes statistics of its split.
    assert (counts["checked"], counts["decoded"]) == (2 * EACH, SPLITS["train"])
    whole = opened(made)
    counts.clear()
    lazy = open_data(run)
    assert (counts["checked"], counts["decoded"], counts["read"]) == (0, 0, 0)
    assert lazy.preprocessing == whole.preprocessing
    samples = lazy.raw("train", 5)
    assert (counts["checked"], counts["decoded"], counts["read"]) == (5, 5, 10)
    first = lazy.first_batch("validation")
    assert (counts["checked"], counts["decoded"]) == (9, 9)
    assert_same(samples, whole.raw("train", 5))
    assert_same(first, next(iter(whole.evaluate("validation"))))


def test_a_run_evaluates_one_split(images, tmp_path, counts):
    """A split is checked and decoded once, and no other; batches are those of training."""
    made = recipe("folder", images)
    run, whole = run_of(made, tmp_path / "run"), opened(made)
    counts.clear()
    lazy = open_data(run)
    found = list(lazy.evaluate("test")), list(lazy.evaluate("test"))
    assert (counts["checked"], counts["decoded"]) == (SPLITS["test"], SPLITS["test"])
    for batches in found:
        assert_same(batches, list(whole.evaluate("test")))
    assert_same(list(lazy.train(1)), list(whole.train(1)))
    assert counts["checked"] == SPLITS["test"] + SPLITS["train"]


def test_broken_images(images, tmp_path):
    """Training and resuming report all of them at once; a run reports those that it reads, and no others."""
    run = run_of(recipe("folder", images), tmp_path / "run")
    lazy = open_data(run)
    files = open_dataset(run.recipe.data).check.files["train"]
    chosen = files[lazy._sample_numbers("train", 3)[1]]
    other = next(path for i, path in enumerate(files) if i not in lazy._sample_numbers("train", 3))
    other.write_bytes(other.read_bytes()[:100])
    assert len(open_data(run).raw("train", 3)[0]) == 3
    chosen.write_bytes(b"no image")
    with pytest.raises(DataError, match=f"1 of 3 in .* that cannot: {chosen.parent.name}/{chosen.name} .*Fix"):
        open_data(run).raw("train", 3)
    open_data(run).evaluate("test")
    for read in (lambda: load_dataset(run.recipe.data), lambda: opened(run.recipe), lambda: open_data(run, check=True)):
        with pytest.raises(DataError, match=r"images that can be decoded. Received: 2 of 40 in .* data.skip_bad=true"):
            read()
    with pytest.raises(DataError, match="2 of 32"):
        open_data(run).train(0)


def test_skipped_images_are_skipped_for_a_run_too(images, tmp_path, counts):
    """The examples of a run are those that it was trained on: where broken images are skipped, all are checked once."""
    (images / "cat/003.jpg").write_bytes(b"no image")
    made = recipe("folder", images, skip_bad=True)
    run, whole = run_of(made, tmp_path / "run"), opened(made)
    counts.clear()
    lazy = open_data(run)
    assert counts["checked"] == 2 * EACH
    assert sum(split.count for split in lazy.dataset.splits.values()) == 2 * EACH - 1
    assert_same(lazy.raw("train", 100), whole.raw("train", 100))
    assert counts["checked"] == 2 * EACH


def test_counting_labels_reads_no_file(images, texts, counts):
    """The classes of files are those of their folders."""
    for made in (recipe("folder", images), recipe("text_folder", texts)):
        pipeline = opened(made)
        counts.clear()
        assert class_weights(LossConfig(balanced=True), pipeline) == (1.0, 1.0)
        assert not counts
        split = open_dataset(made.data).splits["train"]
        labels = list(split.labels().as_numpy_iterator())
        # The control: examples do read each file, in the same order.
        assert [y for _, y in split.examples.as_numpy_iterator()] == labels
        assert counts["read"] == SPLITS["train"]


def test_labels_of_tfds_decode_no_image(tmp_path):
    """Neither the image nor any other image of an example, here none that could be decoded."""
    import tensorflow_datasets as tfds

    with tfds.core.registered.skip_registration():

        class Masked(tfds.core.GeneratorBasedBuilder):
            """Images with a mask."""

            VERSION = tfds.core.Version("1.0.0")
            pkg_dir_path = None

            def _info(self):
                features = {
                    "image": tfds.features.Image(encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(num_classes=3),
                    "mask": tfds.features.Image(encoding_format="png"),
                }
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
                )

            def _split_generators(self, _):
                return {"train": self._generate_examples(30), "validation": self._generate_examples(4)}

            def _generate_examples(self, count):
                for i in range(count):
                    yield i, {"image": io.BytesIO(b"none"), "label": i % 3, "mask": io.BytesIO(b"none")}

    builder = Masked(data_dir=tmp_path)
    split = from_builder(builder, "masked", local=True).splits["train"]
    labels = [int(y) for y in split.labels().as_numpy_iterator()]
    assert np.bincount(labels).tolist() == [10, 10, 10]
    assert [int(y) for _, y in split.selected([0, 7]).as_numpy_iterator()] == [labels[0], labels[7]]
    # The control: TFDS itself decodes.
    with pytest.raises(Exception, match=r"[Ii]mage"):
        list(builder.as_dataset(split="train").as_numpy_iterator())


def test_texts_of_a_run_are_read_as_they_are_asked_for(texts, tmp_path, counts):
    """Opening reads none, samples are read and checked alone; they are the texts of training."""
    made = recipe("text_folder", texts)
    whole = opened(made)
    # The control: training reads all to check their encoding, and the training split once more into memory.
    assert counts["read"] == 2 * EACH + SPLITS["train"]
    run = run_of(made, tmp_path / "run")
    counts.clear()
    lazy = open_data(run)
    assert counts["read"] == 0
    samples = lazy.raw("train", 5)
    assert 5 <= counts["read"] <= 15
    assert lazy.text == whole.text
    assert lazy.strings("train", 5) == whole.strings("train", 5)
    assert_same(samples, whole.raw("train", 5))
    counts.clear()
    assert_same(list(lazy.train(2)), list(whole.train(2)))
    # Those of the checked pipeline are in memory already.
    assert counts["read"] == 2 * SPLITS["train"]


def test_broken_texts(texts, tmp_path):
    """A run reports a text that it reads; training reports any."""
    run = run_of(recipe("text_folder", texts), tmp_path / "run")
    files = open_dataset(run.recipe.data).check.files["train"]
    files[1].write_bytes(b"\0")
    assert len(open_data(run).raw("train", 2)[0]) == 2
    with pytest.raises(DataError, match=r"texts. Received: 1 of 32"):
        open_data(run).raw("train", 32)
    with pytest.raises(DataError, match=r"texts. Received: 1 of 40"):
        opened(run.recipe)


@pytest.mark.parametrize(
    "content",
    ["plain", "\ufeffmark\n", "\ufeff\ufefftwo marks", "a\r\nb\rc\r\r\nd\n", "größer \ufeff ☃\x00 end\u2028x\x85y"],
)
def test_files_are_read_as_python_reads_them(content, tmp_path):
    """Byte order marks and line ends, as `Path.read_text` gives them."""
    path = tmp_path / "a.txt"
    path.write_bytes(content.encode())
    assert as_text(path.read_bytes()).numpy().decode() == path.read_text(encoding="utf-8-sig")


def test_a_text_without_its_tags_has_its_number():
    """Among samples, an example that does not fit its label is reported by its number in the split."""
    x, y = ["the cat"] * 10, ["a b"] * 10
    y[9] = "a"
    splits = {"train": in_memory_split(x, y), "validation": in_memory_split(x[:2], y[:2])}
    tagged = Dataset("odd_tags", ("a", "b"), (), splits, text=TextConfig(), task="tag")
    register_dataset("odd_tags")(lambda _: tagged)
    try:
        made = Recipe("t", ModelConfig("tagger_tiny"), DataConfig("odd_tags", length=(4,), batch_size=2))
        lazy = open_pipeline(made, zoo.spec("tagger_tiny"), TextConfig(), check=False)
        lazy.check_examples("train", np.array([0, 3]))
        with pytest.raises(DataError, match="example 9 of odd_tags's train split with 1 for 2 tokens"):
            lazy.check_examples("train", np.array([0, 9]))
    finally:
        datasets._entries.pop("odd_tags", None)
        datasets._origins.pop("odd_tags", None)


def test_statistics_of_a_run_are_not_computed_again(images, tmp_path):
    """Statistics that a run should have saved and has not are an error, not other statistics."""
    made = recipe("folder", images, normalize="channel")
    run = Run.create(made, tmp_path / "run")
    with pytest.raises(RunError, match=r"none, without 'preprocessing'. Restore") as error:
        open_data(run)
    assert "\n" not in str(error.value)
    assert (
        open_data(Run.create(recipe("folder", images), tmp_path / "plain")).preprocessing
        == zoo.spec("mlp_tiny").preprocessing
    )
