"""ImageNet in three storage formats, made small; record files and files that are shuffled."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from prepared_imagenet import prepare

import training
from training import DataConfig
from training.data.readers.files import file_split
from training.data.readers.loading import load_dataset
from training.data.readers.records import count_records, record_split
from zoo.common.errors import DataError
from zoo.specs.preprocessing import IMAGENET

WNIDS = ("n01440764", "n01443537", "n01484850", "n02012849", "n03126707")
NAMES = """n01440764 tench, Tinca tinca
n01443537 goldfish, Carassius auratus
n02012849 crane
n03126707 crane
"""


def jpeg(number, size=(40, 48)):
    """Return the bytes of a small JPEG; its gray level is 8 times its number."""
    pixels = np.full((*size, 3), 8 * number % 256, "uint8")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def as_folders(root, each=4, validation="val"):
    """Write train/<wnid>/*.JPEG and val/<wnid>/*.JPEG."""
    for split, count in (("train", each), (validation, 2)):
        for label, wnid in enumerate(WNIDS):
            folder = root / split / wnid
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{wnid}_{i}.JPEG").write_bytes(jpeg(label))
    return root


def record(label, content=None):
    """Return an example as common scripts write it, with labels from 1."""
    import tensorflow as tf

    features = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[content or jpeg(label)])),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label + 1])),
        "image/class/synset": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"n01440764"])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write(path, records):
    """Write a TFRecord file."""
    import tensorflow as tf

    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for one in records:
            writer.write(one)


def as_records(root, shards=3, each=4, sub=False):
    """Write shards of train and validation; sub puts each split into a folder of its own."""
    for split, total in (("train", shards), ("validation", 2)):
        for i in range(total):
            place = root / split if sub else root
            write(place / f"{split}-{i:05d}-of-{total:05d}", [record((each * i + j) % 5) for j in range(each)])
    return root


def as_tfds(root):
    """Prepare a TFDS dataset named imagenet2012 with its real files, of few images."""
    import tensorflow_datasets as tfds

    def example(i):
        return {"image": io.BytesIO(jpeg(i % 5)), "label": i % 5, "file_name": f"{i}.JPEG"}

    prepare(root, {"train": 20, "validation": 10}, example, {"names": list(WNIDS)}, file_name=tfds.features.Text())
    return root


WAYS = {"folders": as_folders, "records": as_records, "tfds": as_tfds}


def load(path):
    """Load ImageNet from a folder."""
    return load_dataset(DataConfig("imagenet2012", path=str(path)))


def rows(examples):
    """Return (number from the gray level, label) of all examples."""
    found = []
    for content, label in examples.as_numpy_iterator():
        gray = int(np.asarray(Image.open(io.BytesIO(content)))[5, 5, 0])
        found.append((round(gray / 8), int(label)))
    return found


@pytest.fixture(params=WAYS)
def storage(request, tmp_path):
    """The data in each of the three storage formats: (name, folder)."""
    return request.param, WAYS[request.param](tmp_path / "imagenet")


def test_each_storage_is_recognized(storage):
    """Images have the labels they were written with, correct counts, and ImageNet's preprocessing."""
    name, path = storage
    dataset = load(path)
    train = {"folders": 20, "records": 12, "tfds": 20}[name]
    validation = {"folders": 10, "records": 8, "tfds": 10}[name]
    assert {split: part.count for split, part in dataset.splits.items()} == {"train": train, "validation": validation}
    assert len(dataset.labels) == (1000 if name == "records" else 5)
    assert dataset.labels[:3] == WNIDS[:3]
    assert dataset.preprocessing == IMAGENET
    for part in dataset.splits.values():
        found = rows(part.examples)
        assert len(found) == part.count
        assert all(gray == label for gray, label in found)
        assert {label for _, label in found} == set(range(5))


def test_files_of_tfds_are_shuffled_by_the_pipeline(tmp_path):
    """Its buffer shuffles them; they have no order of their own."""
    assert load(WAYS["tfds"](tmp_path / "imagenet")).splits["train"].shuffled is None


@pytest.mark.parametrize("storage", sorted(WAYS.keys() - {"tfds"}), indirect=True)
def test_each_storage_is_shuffled_by_a_seed(storage):
    """Each seed gives one order of all examples; a skip drops its first examples."""
    split = load(storage[1]).splits["train"]
    first, again, other = (rows(split.shuffled(seed, 0)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert sorted(first) == sorted(other) == sorted(rows(split.examples))
    assert rows(split.shuffled(1, 5)) == first[5:]


@pytest.mark.slow
def test_each_storage_trains(storage, tmp_path, zoo_command):
    """`zoo train` trains a tiny model on it with ResNet's augmentation, and the run is complete."""
    code, _out, err = zoo_command(
        "train", "folder_resnet18", "--run", tmp_path / "run", "--quiet",
        *(f"--set={change}" for change in (
            "data.name=imagenet2012", f"data.path={storage[1]}", "model.name=resnet_tiny", "model.options={}",
            "epochs=1", "data.batch_size=4", "data.image_size=[32,32]", "schedule.warmup_epochs=0",
            "data.augment.shift=0", "data.augment.zoom=0", "data.augment.crop_scale=[0.08,1.0]",
        )),
    )  # fmt: skip
    assert (code, err) == (0, "")
    result = training.Run.open(tmp_path / "run").result()
    assert result["test"]["split"] == "validation"
    assert result["input_shape"] == [32, 32, 3]
    assert np.isfinite(result["test"]["loss"])


@pytest.mark.parametrize("place", ["", "imagenet2012", "imagenet2012/5.1.0"])
def test_prepared_data_is_found_from_above(tmp_path, place):
    """data.path may be the folder of TFDS, of the dataset or of the version."""
    assert load(as_tfds(tmp_path) / place).splits["train"].count == 20


def test_shards_in_folders_of_their_own(tmp_path):
    """train/train-*-of-* works like train-*-of-*."""
    assert load(as_records(tmp_path, sub=True)).splits["train"].count == 12


def test_validation_folder_may_be_named_validation(tmp_path):
    """validation/ works like val/."""
    assert load(as_folders(tmp_path, validation="validation")).splits["validation"].count == 10


@pytest.mark.parametrize("name", ["LOC_synset_mapping.txt", "synset_words.txt", "imagenet_class_index.json"])
def test_names_are_read_where_there_is_a_list(tmp_path, name):
    """Classes have the names of the list, the two cranes are distinct, and unlisted classes have their WordNet ID."""
    pairs = dict(line.split(" ", 1) for line in NAMES.splitlines())
    index = json.dumps({str(i): [wnid, called] for i, (wnid, called) in enumerate(pairs.items())})
    (as_folders(tmp_path) / name).write_text(index if name.endswith("json") else NAMES)
    assert load(tmp_path).labels == ("tench", "goldfish", "n01484850", "crane (n02012849)", "crane (n03126707)")


def test_unreadable_list_is_refused(tmp_path):
    """One line names the broken list."""
    (as_folders(tmp_path) / "imagenet_class_index.json").write_text('{"0": 3}')
    with pytest.raises(DataError, match=r"imagenet_class_index\.json") as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


def refused(path, message):
    """Expect one line with the problem."""
    with pytest.raises(DataError, match=message) as error:
        load(path)
    assert "\n" not in str(error.value)


def test_missing_data_is_reported_with_the_expected_files(tmp_path):
    """A missing folder, or one with other files, is refused with the expected files."""
    (tmp_path / "notes.txt").write_text("tench")
    refused(tmp_path, r"train/<wnid>/\*\.JPEG.*--set data\.path=FOLDER")
    refused(tmp_path / "nowhere", rf"train/<wnid>/\*\.JPEG.* There is no folder {tmp_path}/nowhere\.")


def test_missing_parts_are_reported(tmp_path):
    """A missing shard, missing validation, a class that train/ lacks, and a split without images are refused."""
    shards = as_records(tmp_path / "a")
    (shards / "train-00001-of-00003").unlink()
    refused(shards, "Expected 3 shards.*Received: 2")
    for shard in as_records(tmp_path / "b").glob("validation-*"):
        shard.unlink()
    refused(tmp_path / "b", r"Expected validation-\*-of-\*")
    shutil.rmtree(as_folders(tmp_path / "c") / "val")
    refused(tmp_path / "c", "Expected val/<wnid>")
    shutil.rmtree(as_folders(tmp_path / "d") / "train" / WNIDS[2])
    refused(tmp_path / "d", f"classes of train/.*{WNIDS[2]}")
    for image in (as_folders(tmp_path / "e") / "val").rglob("*.JPEG"):
        image.unlink()
    refused(tmp_path / "e", "Expected images")


@pytest.mark.parametrize("cut", [1, 4, 20, 500])
def test_truncated_shard_is_named(tmp_path, cut):
    """A truncated shard is found before training, from the lengths of its records."""
    shard = as_records(tmp_path) / "train-00002-of-00003"
    assert count_records(shard) == 4
    shard.write_bytes(shard.read_bytes()[:-cut])
    refused(tmp_path, "train-00002-of-00003, truncated in record 4")


def test_label_out_of_bounds_stops():
    """A label of 0, the background class of other lists, does not become the last class."""
    import tensorflow as tf

    from training.datasets.imagenet2012 import _parse

    assert int(_parse(record(999, b"x"))[1]) == 999
    for wrong in (-1, 1000):
        with pytest.raises(tf.errors.InvalidArgumentError, match="1 to 1000"):
            _parse(record(wrong, b"x"))


def test_records_are_mixed_across_files(tmp_path):
    """Files with one class each are mixed; each record occurs once."""
    for i in range(20):
        write(tmp_path / f"part-{i:02d}", [str(100 * i + j).encode() for j in range(30)])
    import tensorflow as tf

    split = record_split(sorted(tmp_path.iterdir()), lambda r: (r, tf.strings.to_number(r, tf.int64) // 100))
    assert split.count == 600
    found = [int(label) for _, label in split.shuffled(3, 0).as_numpy_iterator()]
    assert np.bincount(found).tolist() == [30] * 20
    assert len(set(found[:60])) > 12


def test_files_are_shuffled_by_name(tmp_path):
    """Every file occurs once in any order, except the skipped ones; global seeds change nothing."""
    import tensorflow as tf

    for i in range(50):
        (tmp_path / str(i)).write_bytes(str(i).encode())
    split = file_split([str(tmp_path / str(i)) for i in range(50)], range(50))
    order = [int(label) for _, label in split.shuffled(1, 0).as_numpy_iterator()]
    assert sorted(order) == list(range(50))
    assert order != list(range(50))
    tf.random.set_seed(5)
    try:
        rest = [(int(x), int(label)) for x, label in split.shuffled(1, 20).as_numpy_iterator()]
    finally:
        tf.random.set_seed(None)
    assert rest == [(label, label) for label in order[20:]]
