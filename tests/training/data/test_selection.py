"""Selecting examples for calibration and samples: the same as a scan of the split, without reading others."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from prepared_imagenet import prepare

import training.data.pipeline.pipeline as pipeline_module
import zoo
from training import DataConfig, ModelConfig, Recipe, Split
from training.data.pipeline.opening import open_pipeline
from training.data.readers import records
from training.data.readers.loading import load_dataset
from training.data.readers.records import read_records
from training.data.readers.tfds import _instructions, _split

EACH, SHARDS = 12, 3


def jpeg(number):
    """Return the bytes of a JPEG of noise."""
    pixels = np.random.default_rng(number).integers(0, 256, (24, 20, 3)).astype("uint8")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def write_folder(root):
    """Write an ImageNet of folders: 36 training images, 2 validation images."""
    for split, count in (("train", SHARDS * EACH // 2), ("val", 1)):
        for label in range(2):
            folder = root / split / f"n{label:08d}"
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{i:02d}.JPEG").write_bytes(jpeg(100 * label + i))


def write_records(root):
    """Write an ImageNet of TFRecord shards."""
    import tensorflow as tf

    def example(number):
        features = {
            "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[jpeg(number)])),
            "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[number % 7 + 1])),
        }
        return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()

    for split, shards in (("train", SHARDS), ("validation", 1)):
        for shard in range(shards):
            with tf.io.TFRecordWriter(str(root / f"{split}-{shard:05d}-of-{shards:05d}")) as writer:
                for i in range(EACH):
                    writer.write(example(EACH * shard + i))


def write_tfds(root):
    """Prepare an ImageNet of TFDS."""

    def example(i):
        return {"image": io.BytesIO(jpeg(i)), "label": i % 7}

    prepare(root, {"train": 36, "validation": 4}, example, {"num_classes": 7})


WRITERS = {"folder": write_folder, "records": write_records, "tfds": write_tfds}


def open_imagenet(root):
    """Return the pipeline of an ImageNet in a folder."""
    data = DataConfig("imagenet2012", path=str(root), image_size=(16, 16))
    return open_pipeline(Recipe("test", model=ModelConfig("resnet_tiny"), data=data), zoo.spec("resnet_tiny"))


def scan(split, numbers):
    """Return the raw examples of some numbers by reading the whole split."""
    return [example for i, example in enumerate(split.examples.as_numpy_iterator()) if i in set(map(int, numbers))]


def same(one, two):
    """Return whether two lists of raw examples are equal."""
    return len(one) == len(two) and all(
        np.array_equal(a, b) for o, t in zip(one, two, strict=True) for a, b in zip(o, t, strict=True)
    )


@pytest.mark.parametrize("kind", WRITERS)
def test_selection_gives_what_a_scan_gives(kind, tmp_path):
    """Each kind of ImageNet selects the examples of a scan: at the ends, adjacent ones, and across shards."""
    WRITERS[kind](tmp_path)
    split = open_imagenet(tmp_path).dataset.splits["train"]
    for numbers in ([0], [split.count - 1], [0, 11, 12, 13, 35], list(range(split.count))):
        assert same(list(split.selected(numbers).as_numpy_iterator()), scan(split, numbers))


@pytest.mark.parametrize(
    ("config", "split"),
    [
        (DataConfig("digits"), "train"),
        (DataConfig("iris"), "test"),
        (DataConfig("word_order"), "validation"),
        (DataConfig("word_roles"), "test"),
        (DataConfig("reverse"), "test"),
    ],
)
def test_every_reader_selects_what_a_scan_gives(config, split):
    """TFDS with a sub-split, tables, generated texts, tags and pairs."""
    found = load_dataset(config).splits[split]
    assert found.select
    numbers = [0, 3, found.count // 2, found.count - 1]
    assert same(list(found.selected(numbers).as_numpy_iterator()), scan(found, numbers))


def test_split_without_a_selection_reads_up_to_the_last():
    """A dataset of a plug-in need not define `select`; examples after the last selected one are not read."""
    import tensorflow as tf

    read = []

    def generate():
        for i in range(100):
            read.append(i)
            yield np.float32(i), np.int64(i % 2)

    signature = (tf.TensorSpec((), tf.float32), tf.TensorSpec((), tf.int64))
    split = Split(tf.data.Dataset.from_generator(generate, output_signature=signature), 100)
    assert [float(x) for x, _ in split.selected([2, 5]).as_numpy_iterator()] == [2.0, 5.0]
    assert max(read) <= 6


@pytest.mark.parametrize("memory", [1 << 30, 0])
def test_files_of_other_images_are_not_read(tmp_path, monkeypatch, memory):
    """Samples of a folder read only their own files: all others may be missing, for any size of the split."""
    write_folder(tmp_path)
    monkeypatch.setattr(pipeline_module, "MEMORY", memory)
    pipe = open_imagenet(tmp_path)
    wanted, labels = pipe.raw("train", 5)
    files = sorted((tmp_path / "train").rglob("*.JPEG"))
    chosen = {files[i] for i in np.linspace(0, 35, 5).astype(int)}
    for path in files:
        if path not in chosen:
            path.unlink()
    x, y = open_again(pipe).raw("train", 5)
    np.testing.assert_array_equal(x, wanted)
    np.testing.assert_array_equal(y, labels)
    # The control: a scan needs the other files.
    with pytest.raises(Exception, match="No such file"):
        scan(pipe.dataset.splits["train"], [0])


def open_again(pipe):
    """Return a pipeline of the same dataset that holds nothing in memory."""
    import dataclasses

    return dataclasses.replace(pipe)


@pytest.mark.parametrize("kind", ["records", "tfds"])
def test_bytes_read_of_record_files(kind, tmp_path, monkeypatch):
    """Of record files, samples read the selected records and 12 bytes of others, not a fraction of the file."""
    WRITERS[kind](tmp_path)
    pipe = open_imagenet(tmp_path)
    read, plain = [], records.open_regular

    def counted(path, *arguments):
        file = plain(path, *arguments)

        class Counted:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def seek(self, place):
                return file.seek(place)

            def read(self, size):
                read.append(size)
                return file.read(size)

        return Counted()

    monkeypatch.setattr(records, "open_regular", counted)
    x, _ = pipe.raw("train", 3)
    assert len(x) == 3
    size = sum(path.stat().st_size for path in tmp_path.rglob("*-of-*") if "train" in path.name)
    largest = max(len(jpeg(i)) for i in range(36)) + 200
    assert 0 < sum(read) <= 3 * largest + 12 * 36 < size / 3


def test_damage_in_other_records_does_not_matter(tmp_path):
    """Damaged records that are not selected never reach TensorFlow; a scan stops at the first."""
    write_records(tmp_path)
    pipe = open_imagenet(tmp_path)
    wanted = pipe.raw("train", 2)[0]
    shard = tmp_path / "train-00001-of-00003"
    content = bytearray(shard.read_bytes())
    content[40] ^= 255
    shard.write_bytes(content)
    np.testing.assert_array_equal(open_again(pipe).raw("train", 2)[0], wanted)
    with pytest.raises(Exception, match="corrupted record"):
        scan(pipe.dataset.splits["train"], [0])


def test_records_by_number(tmp_path):
    """Records are read by number, at any length, including empty ones."""
    import tensorflow as tf

    contents = [b"a" * n for n in (3, 0, 100, 1)]
    with tf.io.TFRecordWriter(str(tmp_path / "r")) as writer:
        for content in contents:
            writer.write(content)
    assert read_records(tmp_path / "r", [0, 1, 3]) == [contents[i] for i in (0, 1, 3)]


def test_other_formats_of_tfds_are_read_by_instruction(tmp_path):
    """For files other than TFRecord, TFDS skips to the same examples itself."""
    import tensorflow_datasets as tfds

    write_tfds(tmp_path)
    builder = tfds.builder_from_directory(next(tmp_path.rglob("dataset_info.json")).parent)
    split = _split(builder, "train[5:30]", lambda e: (e["image"], e["label"]))
    decoders = {"image": tfds.decode.SkipDecoding()}
    found = builder.as_dataset(
        split=_instructions("train[5:30]", [0, 7, 24]), decoders=decoders, shuffle_files=False,
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
    )  # fmt: skip
    wanted = list(split.selected([0, 7, 24]).as_numpy_iterator())
    assert same([(e["image"], e["label"]) for e in found.as_numpy_iterator()], wanted)
    assert same(wanted, scan(split, [0, 7, 24]))
