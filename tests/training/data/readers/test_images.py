"""Image files as people have them: other types, large and deep ones, copies in two splits, what is left out."""

from __future__ import annotations

import shutil
import struct

import numpy as np
import pytest
from PIL import Image

import zoo
from training import DataConfig, ModelConfig, Recipe
from training.common.image_files import suffixes
from training.data.pipeline.opening import open_pipeline, training_statistics
from training.data.readers.loading import load_dataset, open_dataset
from training.data.readers.scan import FileKind, Scan
from training.data.summary import summarize, summary_lines
from zoo.common.errors import BadOption, DataError


def image(number, size=16):
    """Return an image that no other number has."""
    values = np.random.default_rng(number).integers(0, 255, (size, size, 3), "uint8")
    return Image.fromarray(values)


def fill(root, count=10, suffix=".png", classes=("cat", "dog"), first=0):
    """Write different images of some classes; returns the root."""
    for kind, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image(first + 1000 * kind + i).save(root / name / f"{i:02d}{suffix}")
    return root


def load(root, **options):
    """Return a folder of images with all its examples checked."""
    return load_dataset(DataConfig("folder", path=str(root), **options))


def lines(root, **options):
    """Return the lines of the summary."""
    return list(summary_lines(summarize(load(root, **options))))


def pixels(dataset):
    """Return the images of all splits by class, as bytes."""
    import tensorflow as tf

    found = {}
    for split in dataset.splits.values():
        for x, y in split.examples.as_numpy_iterator():
            found.setdefault(int(y), set()).add(tf.io.decode_image(x).numpy().tobytes())
    return found


@pytest.mark.parametrize("suffix", [".tif", ".TIFF", ".avif", ".ppm", ".bmp", ".jp2", ".heic"])
def test_other_types_are_converted_and_said(suffix, tmp_path):
    """20 of 30 dogs of another type are examples, with their pixels; the summary counts them."""
    assert suffix.lower() in suffixes()
    fill(tmp_path, 30)
    for path in sorted((tmp_path / "dog").iterdir())[10:]:
        options = {"quality": 100} if suffix in (".avif", ".heic") else {}
        Image.open(path).save(path.with_suffix(suffix), **options)
        path.unlink()
    dataset = load(tmp_path)
    assert {name: split.count for name, split in dataset.splits.items()} == {"train": 48, "validation": 6, "test": 6}
    said = ["Converted by Pillow: " + f"{suffix.lower()} 20"] if suffix != ".bmp" else []
    assert list(summary_lines(summarize(dataset)))[2:] == said
    assert len(pixels(dataset)[1]) == 30
    if suffix in (".tif", ".TIFF", ".ppm", ".bmp", ".jp2"):
        assert pixels(dataset)[1] == {image(1000 + i).tobytes() for i in range(30)}


def test_suffixes_do_not_decide(tmp_path):
    """A TIFF that is called .jpg, and a JPEG that is called .png, are what they are."""
    fill(tmp_path)
    image(1).save(tmp_path / "cat" / "00.png", "TIFF")
    image(2).save(tmp_path / "cat" / "01.png", "JPEG")
    assert sum(split.count for split in load(tmp_path).splits.values()) == 20


def test_types_without_a_decoder_are_named_with_the_remedy(tmp_path):
    """Where pillow-heif is missing, .heic files are counted, and the extra that reads them is named."""
    fill(tmp_path, 4)
    for i in range(3):
        (tmp_path / "dog" / f"{i}.heic").write_bytes(b"any")
    kind = FileKind("images", (".png",), remedies={".heic": "to read them: pip install"})
    scan = Scan(tmp_path, kind)
    scan.classes()
    assert scan.notes() == ("Left out: 3 files of another type (.heic 3); to read them: pip install",)


def test_hidden_folders_at_the_root_are_counted(tmp_path):
    """Beside the classes, and beside the splits."""
    for place in (fill(tmp_path / "classes"), fill(tmp_path / "splits" / "train").parent):
        (place / ".cache" / "deep").mkdir(parents=True)
        (place / ".cache" / "deep" / "x.png").write_bytes(b"")
        (place / "__MACOSX").mkdir()
        (place / "__MACOSX" / "._y.png").write_bytes(b"")
    fill(tmp_path / "splits" / "test", 2, first=500)
    for place in ("classes", "splits"):
        assert "Left out: 2 files hidden (.png 2)" in lines(tmp_path / place)


def bomb(place):
    """Write a PNG whose header announces 60,000 x 50,000 pixels."""
    content = bytearray(place.read_bytes())
    content[16:24] = struct.pack(">II", 60_000, 50_000)
    place.write_bytes(content)


def test_large_images_are_refused_by_their_header(tmp_path):
    """With the limit, which an option changes; nothing is decoded."""
    bomb(fill(tmp_path) / "cat" / "03.png")
    with pytest.raises(DataError, match=r"1 of 20.*cat/03.png \(3,000,000,000 pixels, above data.max_pixels=100,000"):
        load(tmp_path)
    assert "Left out: 1 image above data.max_pixels: cat/03.png" in lines(tmp_path, skip_bad=True)
    with pytest.raises(DataError, match=r"20 of 20.*256 pixels, above data.max_pixels=255"):
        load(fill(tmp_path / "small"), max_pixels=255)
    assert load(tmp_path / "small", max_pixels=256)


def test_what_is_skipped_is_named(tmp_path):
    """Each file in the summary of the run; the first in the line."""
    fill(tmp_path, 12)
    for i in range(7):
        (tmp_path / "dog" / f"{i:02d}.png").write_bytes(b"no image")
    dataset = load(tmp_path, skip_bad=True)
    summary = summarize(dataset)
    assert sorted(summary["left_out"]) == [f"dog/{i:02d}.png" for i in range(7)]
    assert "dog/00.png, dog/01.png, dog/02.png, dog/03.png, dog/04.png and 2 more" in summary["notes"][-1]
    for i in range(7, 12):
        (tmp_path / "dog" / f"{i:02d}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"none left of 'dog'|none left in the"):
        load(tmp_path, skip_bad=True)


def test_the_same_image_in_two_splits_is_said(tmp_path):
    """By its content, whatever its name; copies within a split are no leak."""
    fill(tmp_path / "train", 10)
    fill(tmp_path / "valid", 3, first=100)
    fill(tmp_path / "test", 3, first=200)
    assert not [line for line in lines(tmp_path) if "same image" in line]
    shutil.copy(tmp_path / "train/cat/04.png", tmp_path / "test/cat/copy.png")
    shutil.copy(tmp_path / "train/cat/04.png", tmp_path / "train/cat/twin.png")
    (line,) = [line for line in lines(tmp_path) if "same image" in line]
    assert line.startswith("The same image is in two splits: 1 (train: train/cat/04.png = test: test/cat/copy.png).")
    shutil.copy(tmp_path / "train/cat/05.png", tmp_path / "train/dog/wrong.png")
    assert [line for line in lines(tmp_path) if line.startswith("The same image has two labels: 1 (")]
    assert summarize(load(tmp_path))["duplicates"][0] == ["train/cat/04.png", "train/cat/twin.png"]


def smooth(number):
    """Return a photograph-like image: a few large blots."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 255, (5, 6, 3), "uint8")).resize((90, 70))


def test_images_of_two_splits_that_look_alike_are_said_on_request(tmp_path):
    """A smaller copy of lower quality has almost the same hash; other images, and empty ones, have not."""
    for split, first in (("train", 0), ("test", 100)):
        for number, kind in enumerate(("cat", "dog")):
            (tmp_path / split / kind).mkdir(parents=True)
            for i in range(8):
                smooth(first + 1000 * number + i).save(tmp_path / split / kind / f"{i}.png")
            Image.new("RGB", (40 + first, 30 + number), (9, 9, 9)).save(tmp_path / split / kind / "empty.png")
    (line,) = [line for line in lines(tmp_path, near_duplicates=6) if "look alike" in line]
    assert line.endswith("of which 6 may differ: 0")
    smooth(3).resize((45, 35)).save(tmp_path / "test/cat/copy.jpg", quality=60)
    assert not [line for line in lines(tmp_path) if "look alike" in line or "same image" in line]
    shutil.copy(tmp_path / "train/cat/5.png", tmp_path / "test/cat/equal.png")
    (line,) = [line for line in lines(tmp_path, near_duplicates=6) if "look alike" in line]
    assert "6 may differ: 1 (train: train/cat/3.png ~ test: test/cat/copy.jpg). Remove those" in line
    found = summarize(load(tmp_path, near_duplicates=6))["near_duplicates"]
    assert found == [["train/cat/3.png", "test/cat/copy.jpg"]]


def test_classes_of_one_image_are_said(tmp_path):
    """It is a training example; other splits do without."""
    fill(tmp_path)
    fill(tmp_path, 1, classes=("rare",), first=77)
    assert "A single example of rare: too few to learn from, and to measure" in lines(tmp_path)


def test_deep_images_are_scaled_in_training_and_in_the_run(tmp_path):
    """Images of 12 bits in 16: one scale for all of them, stored with the run, said in the summary."""
    for kind, name in enumerate(("dark", "light")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(10):
            values = np.full((12, 12), 4095 if kind else 40 * i, "uint16")
            Image.fromarray(values).save(tmp_path / "data" / name / f"{i}{'.png' if i % 2 else '.tif'}")
    data = DataConfig("folder", path=str(tmp_path / "data"), image_size=(12, 12), channels=1, batch_size=4)
    made = Recipe("t", ModelConfig("mlp_tiny"), data)
    pipeline = open_pipeline(made, zoo.spec("mlp_tiny"))
    statistics = training_statistics(pipeline)
    assert pipeline.preprocessing.bits == statistics["bits"] == 12
    line = "Images of 16 bits use 12 of them (highest value 4,095): scaled by 255 / 4,095"
    assert line in statistics["summary"]["notes"]
    again = open_pipeline(made, zoo.spec("mlp_tiny"), None, statistics, check=False)
    for opened in (pipeline, again):
        x, y = opened.raw("train", 16)
        assert {float(value) for value in x[y == 1].ravel()} == {255.0}
        assert x[y == 0].max() <= 360 * 255 / 4095 + 1


def test_palette_bitmaps_train_on_their_colors(tmp_path):
    """TensorFlow alone returns numbers of colors without an error."""
    for kind, color in enumerate(((220, 0, 0), (0, 0, 220))):
        (tmp_path / "abc"[kind]).mkdir()
        for i in range(10):
            Image.new("RGB", (8, 8), (*color[:1], i, *color[2:])).quantize(4).save(tmp_path / "abc"[kind] / f"{i}.bmp")
    data = DataConfig("folder", path=str(tmp_path), image_size=(8, 8), channels=3, batch_size=4)
    x, y = open_pipeline(Recipe("t", ModelConfig("mlp_tiny"), data), zoo.spec("mlp_tiny")).raw("train", 16)
    assert np.allclose(x[y == 0].mean((0, 1, 2)), (220, 4.5, 0), atol=3)
    assert np.allclose(x[y == 1].mean((0, 1, 2)), (0, 4.5, 220), atol=3)


def test_the_limit_is_of_images(tmp_path):
    """It does not apply to texts."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(10):
            (tmp_path / name / f"{i}.txt").write_text(f"{name} {i}")
    data = DataConfig("text_folder", path=str(tmp_path), max_pixels=5, length=(4,))
    with pytest.raises(BadOption, match=r"data.max_pixels applies to images"):
        open_pipeline(Recipe("t", ModelConfig("encoder_tiny"), data), zoo.spec("encoder_tiny"))
    assert open_dataset(DataConfig("text_folder", path=str(tmp_path))).files is not None
