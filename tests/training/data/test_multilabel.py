"""Several labels per example: metrics by hand, unknown labels, VOC and COCO as on disk, TFDS, a complete run."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

import export
import training
import zoo
from training import AugmentConfig, DataConfig, LogConfig, LossConfig, ModelConfig, OptimizerConfig, Recipe
from training.data.pipeline.opening import open_pipeline
from training.data.readers.loading import load_dataset
from training.learning.metrics import average_precisions, label_metrics
from training.learning.tasks import TASKS
from zoo.common.errors import BadOption, DataError, ParityError


def one_line(error):
    """Return the message, and check that it has one line."""
    assert "\n" not in str(error.value)
    return str(error.value)


def precision_by_hand(truth, scores):
    """Return the average precision: the mean precision at the rank of each positive example."""
    order = np.argsort(-scores)
    found = truth[order]
    return np.mean([found[: i + 1].mean() for i in np.flatnonzero(found)])


def test_metrics_match_their_definitions():
    """Average precision, F1 and accuracy of random predictions match their definitions."""
    draw = np.random.default_rng(0)
    truth, logits = draw.integers(0, 2, (50, 4)), draw.normal(size=(50, 4))
    precisions = [precision_by_hand(t, s) for t, s in zip(truth.T, logits.T, strict=True)]
    assert average_precisions(truth, logits) == pytest.approx(precisions)
    found, given = label_metrics(truth, logits), logits > 0
    assert found["mean_average_precision"] == pytest.approx(np.mean(precisions))
    precision, recall = (given & (truth == 1)).sum() / given.sum(), (given & (truth == 1)).sum() / truth.sum()
    assert found["micro_f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert found["accuracy"] == pytest.approx((given == truth).mean())


def test_unknown_labels_are_ignored():
    """A label of -1 is left out of every metric; a label without positive examples has no precision."""
    truth = np.array([[1, 0, 0], [0, 1, 0], [1, -1, 0], [0, 0, 0]])
    logits = np.array([[2.0, -1, -1], [-1, 1, -1], [3, 9, -1], [-2, -3, -1]])
    assert average_precisions(truth, logits) == [1.0, 1.0, None]
    assert label_metrics(truth, logits) == {"mean_average_precision": 1.0, "micro_f1": 1.0, "accuracy": 1.0}
    other = logits.copy()
    other[2, 1] = -9
    assert label_metrics(truth, other) == label_metrics(truth, logits)
    loss = TASKS["multilabel"].loss(LossConfig())
    assert float(np.mean(loss(truth.astype("float32"), logits.astype("float32")))) == pytest.approx(
        float(np.mean(loss(truth.astype("float32"), other.astype("float32"))))
    )
    for metric in TASKS["multilabel"].metrics(None):
        values = []
        for predictions in (logits, other):
            metric.reset_state()
            metric.update_state(truth.astype("float32"), predictions.astype("float32"))
            values.append(float(metric.result()))
        assert values[0] == pytest.approx(values[1])


def test_running_precision_is_near_the_exact_one():
    """The metric of an epoch, from 200 thresholds, is within a few points of the final evaluation."""
    draw = np.random.default_rng(1)
    truth = draw.integers(0, 2, (400, 5)).astype("float32")
    logits = (draw.normal(size=(400, 5)) + truth).astype("float32")
    accuracy, precision = TASKS["multilabel"].metrics(None)
    for metric in (accuracy, precision):
        metric.update_state(truth, logits)
    exact = label_metrics(truth, logits)
    assert float(precision.result()) == pytest.approx(exact["mean_average_precision"], abs=0.01)
    assert float(accuracy.result()) == pytest.approx(exact["accuracy"])


def picture(number, size=(20, 24)):
    """Return an image filled with a number, as JPEG bytes."""
    file = io.BytesIO()
    Image.fromarray(np.full((*size, 3), 10 * number, "uint8")).save(file, "JPEG", quality=95)
    return file.getvalue()


def annotation(objects):
    """Return VOC's XML of objects (kind, difficult)."""
    parts = "".join(
        f"<object><name>{kind}</name><difficult>{int(difficult)}</difficult><bndbox><xmin>1</xmin></bndbox></object>"
        for kind, difficult in objects
    )
    return f"<annotation><folder>VOC2007</folder>{parts}</annotation>"


OBJECTS = [
    [("cat", False), ("dog", True)],
    [("dog", False), ("dog", True)],
    [("person", False), ("cat", False)],
    [],
    [("train", False)],
    [("cat", True)],
]


@pytest.fixture
def voc(tmp_path):
    """VOCdevkit with six images: three train, two validate, one tests."""
    place = tmp_path / "VOCdevkit" / "VOC2007"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (place / folder).mkdir(parents=True)
    for number, objects in enumerate(OBJECTS):
        (place / f"JPEGImages/{number:06d}.jpg").write_bytes(picture(number))
        (place / f"Annotations/{number:06d}.xml").write_text(annotation(objects))
    lists = {"train": (0, 1, 2), "val": (3, 4), "test": (5,), "trainval": range(5)}
    for name, numbers in lists.items():
        (place / f"ImageSets/Main/{name}.txt").write_text("".join(f"{n:06d}\n" for n in numbers))
        (place / f"ImageSets/Main/cat_{name}.txt").write_text("".join(f"{n:06d} -1\n" for n in numbers))
    return tmp_path


def marks(dataset, split):
    """Return the labels of each image of a split by the number that fills it."""
    found = {}
    for image, target in dataset.splits[split].examples.as_numpy_iterator():
        number = round(float(np.asarray(Image.open(io.BytesIO(image))).mean()) / 10)
        found[number] = {dataset.labels[i]: int(target[i]) for i in np.flatnonzero(target)}
    return found


@pytest.mark.parametrize("inside", ["", "VOCdevkit", "VOCdevkit/VOC2007"])
def test_voc_is_read_from_its_folders(voc, inside):
    """Kinds of objects are labels; a kind that is only difficult is not evaluated; the lists are the splits."""
    dataset = load_dataset(DataConfig("voc2007", path=str(voc / inside)))
    assert (len(dataset.labels), dataset.task, dataset.shape) == (20, "multilabel", (0, 0, 3)) or dataset.shape == (
        0,
        0,
        0,
    )
    assert marks(dataset, "train") == {0: {"cat": 1, "dog": -1}, 1: {"dog": 1}, 2: {"person": 1, "cat": 1}}
    assert marks(dataset, "validation") == {3: {}, 4: {"train": 1}}
    assert marks(dataset, "test") == {5: {"cat": -1}}


BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "x"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "without a document type"),
        (BOMB.replace("DOCTYPE", "doctype"), "without a document type"),
        ("<annotation><object>", "annotation in XML"),
        ("", "annotation in XML"),
        (annotation([("unicorn", False)]), "Received: \\['unicorn'\\]"),
    ],
)
def test_bad_annotations_are_reported_in_one_line(voc, content, message):
    """An entity bomb is never expanded; an invalid annotation and an unknown kind are named with their file."""
    (voc / "VOCdevkit/VOC2007/Annotations/000001.xml").write_text(content)
    with pytest.raises(DataError, match=message) as error:
        load_dataset(DataConfig("voc2007", path=str(voc)))
    assert "000001.xml" in one_line(error)


def test_missing_parts_of_voc_are_reported(voc, tmp_path):
    """A missing image, annotation or list is named; without the kit, the message names what to prepare."""
    place = voc / "VOCdevkit/VOC2007"
    (place / "JPEGImages/000002.jpg").rename(place / "000002.jpg")
    with pytest.raises(DataError, match=r"1 of 6.*000002\.jpg") as error:
        load_dataset(DataConfig("voc2007", path=str(voc)))
    one_line(error)
    assert load_dataset(DataConfig("voc2007", path=str(voc), skip_bad=True)).splits["train"].count == 2
    (place / "ImageSets/Main/val.txt").unlink()
    with pytest.raises(DataError, match=r"train\.txt and val\.txt"):
        load_dataset(DataConfig("voc2007", path=str(voc)))


@pytest.fixture
def coco(tmp_path):
    """The folders of COCO 2017 with twenty training images and two that papers call validation."""
    (tmp_path / "annotations").mkdir()
    categories = [{"id": 7, "name": "train"}, {"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    for split, numbers in (("train", range(20)), ("val", (20, 21))):
        (tmp_path / f"{split}2017").mkdir()
        for n in numbers:
            (tmp_path / f"{split}2017/{n:012d}.jpg").write_bytes(picture(n))
        content = {
            "images": [{"id": 100 + n, "file_name": f"{n:012d}.jpg", "height": 20, "width": 24} for n in numbers],
            "categories": categories,
            "annotations": [
                {"id": 10 * n + c, "image_id": 100 + n, "category_id": c, "iscrowd": 0, "bbox": [0, 0, 1, 1]}
                for n in numbers
                for c in (1, 7, 18)
                if n % (c + 1) == 0
            ],
        }
        (tmp_path / f"annotations/instances_{split}2017.json").write_text(json.dumps(content))
    return tmp_path


def test_coco_is_read_as_it_is_distributed(coco):
    """Labels are in the order of their numbers; the images called validation are the test split."""
    dataset = load_dataset(DataConfig("coco", path=str(coco)))
    assert dataset.labels == ("person", "train", "dog")
    assert {name: split.count for name, split in dataset.splits.items()} == {"train": 18, "validation": 2, "test": 2}
    expected = {n: {k: 1 for k, c in (("person", 2), ("train", 8), ("dog", 19)) if n % c == 0} for n in range(22)}
    assert marks(dataset, "test") == {20: expected[20], 21: expected[21]}
    assert marks(dataset, "train") | marks(dataset, "validation") == {n: expected[n] for n in range(20)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(image_id=999), "KeyError: 999"),
        (lambda c: c["annotations"][0].update(category_id=999), "KeyError: 999"),
        (lambda c: c.pop("categories"), "KeyError: 'categories'"),
        (lambda c: c["images"][0].update(file_name="../../etc/passwd"), "is outside of train2017"),
    ],
)
def test_bad_annotations_of_coco_are_reported_in_one_line(coco, change, message):
    """An unknown number, a missing part and a file outside the folder are refused."""
    path = coco / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as error:
        load_dataset(DataConfig("coco", path=str(coco)))
    one_line(error)


def prepare(folder, builder_name, version, features, examples, config=None):
    """Prepare a small TFDS dataset in a folder, with a builder that is unregistered afterwards."""
    import tensorflow_datasets as tfds

    with tfds.core.registered.skip_registration():

        class Small(tfds.core.GeneratorBasedBuilder):
            """A few examples."""

            name = builder_name
            VERSION = tfds.core.Version(version)
            pkg_dir_path = None
            BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config, version=version)] if config else []

            def _info(self):
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
                )

            def _split_generators(self, _):
                return {name: enumerate(part) for name, part in examples.items()}

            def _generate_examples(self):
                """Unused."""

    Small(data_dir=folder).download_and_prepare()


def pixels(number):
    """Return an image filled with a number."""
    return np.full((20, 24, 3), 10 * number, "uint8")


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


def test_prepared_coco_of_tfds_is_found(tmp_path):
    """Without the folder, the files that TFDS prepared are read, with their features and splits."""
    import tensorflow_datasets as tfds

    builder = tfds.builder("coco/2017", data_dir=tmp_path, try_gcs=False)
    objects = dict(builder.info.features["objects"].feature.items())
    features = {
        "image": builder.info.features["image"],
        "image/filename": tfds.features.Text(),
        "image/id": np.int64,
        "objects": tfds.features.Sequence(objects),
    }
    box = tfds.features.BBox(0.0, 0.0, 1.0, 1.0)

    def example(number, labels):
        found = [{"area": 1, "bbox": box, "id": i, "is_crowd": False, "label": label} for i, label in enumerate(labels)]
        return {"image": pixels(number), "image/filename": "x.jpg", "image/id": number, "objects": found}

    splits = {
        "train": [example(n, [n % 3, n % 3]) for n in range(10)],
        "validation": [example(n, [79]) for n in (10, 11, 12)],
        "test": [example(13, [])],
    }
    prepare(tmp_path, "coco", str(builder.version), features, splits, config="2017")
    dataset = load_dataset(DataConfig("coco", path=str(tmp_path)))
    assert len(dataset.labels) == 80
    assert {n: s.count for n, s in dataset.splits.items()} == {"train": 9, "validation": 1, "test": 3}
    assert marks(dataset, "test") == {n: {dataset.labels[79]: 1} for n in (10, 11, 12)}
    assert marks(dataset, "validation") == {9: {dataset.labels[0]: 1}}


def grids(root, count=450, seed=0):
    """Write VOC's kit of real digits in grids of 2x2: digit d is VOC's kind number d."""
    from training.datasets.digits import load_pixels
    from training.datasets.voc2007 import LABELS

    images, digits = load_pixels()
    draw, place = np.random.default_rng(seed), root / "VOC2007"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (place / folder).mkdir(parents=True)
    # No image of the training half is in a grid of another split.
    bounds = {"train": (0, 1200), "val": (1200, 1437), "test": (1437, 1797)}
    for split, (low, high) in bounds.items():
        names = []
        for i in range(count if split == "train" else 150):
            chosen = draw.integers(low, high, 4)
            tiles = images[chosen].reshape(2, 2, 8, 8).transpose(0, 2, 1, 3).reshape(16, 16)
            names.append(f"{split}{i:05d}")
            Image.fromarray(tiles).resize((32, 32)).save(place / f"JPEGImages/{names[-1]}.jpg", quality=95)
            objects = [(LABELS[d], False) for d in digits[chosen]]
            (place / f"Annotations/{names[-1]}.xml").write_text(annotation(objects))
        (place / f"ImageSets/Main/{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return root


@pytest.fixture(scope="module")
def grid_run(tmp_path_factory):
    """A finished run on grids of real digits."""
    root = grids(tmp_path_factory.mktemp("grids"))
    made = Recipe(
        "grids",
        ModelConfig("cnn_tiny"),
        DataConfig("voc2007", path=str(root), batch_size=32, image_size=(32, 32), channels=1),
        OptimizerConfig("adamw", 3e-3),
        epochs=12,
        log=LogConfig(every=0, misclassified=0),
        precision="float32",
        strategy="one",
    )
    return training.train(made, run=tmp_path_factory.mktemp("runs") / "grids")


def test_run_predicts_the_labels(grid_run):
    """The mean average precision is far above chance, and is next to the metrics of each label."""
    test = grid_run.result()["test"]
    assert grid_run.result()["task"] == "multilabel"
    found = {name: value for name, value in test["average_precision"].items() if value is not None}
    assert len(found) == 10
    assert test["mean_average_precision"] == pytest.approx(np.mean(list(found.values())))
    # Each label is in a third of the grids, which is the precision of chance.
    assert test["mean_average_precision"] > 0.5
    best = grid_run.result()["best"]
    rows = [row["val_mean_average_precision"] for row in grid_run.metrics()]
    assert best["val_mean_average_precision"] == pytest.approx(max(rows))


def test_command_prints_the_metrics_of_labels(grid_run, zoo_command):
    """`zoo evaluate` prints the mean average precision first."""
    code, out, err = zoo_command("evaluate", grid_run.path)
    assert (code, err) == (0, "")
    assert f"mAP {grid_run.result()['test']['mean_average_precision']:.4f}, micro F1" in out


FORMATS = ["tflite", "tflite_int8", "onnx", "saved_model"]


@pytest.fixture(scope="module")
def grid_artifacts(grid_run):
    """The run exported, by format."""
    return {a.format: a for a in export.convert(grid_run, FORMATS)}


@pytest.mark.slow
@pytest.mark.parametrize("fmt", FORMATS)
def test_artifacts_predict_the_labels_of_their_source(grid_artifacts, fmt):
    """Each predicts the source's labels, names the compared metric, and verifies from its files alone."""
    parity = export.verify(grid_artifacts[fmt].path).parity
    assert (parity["metric"], parity["passed"], parity["n"]) == ("mean_average_precision", True, 150)
    assert parity["agreement"] >= (0.97 if "int8" in fmt else 1.0)
    metadata = grid_artifacts[fmt].manifest["metadata"]
    assert (metadata["task"], metadata["output"], len(metadata["labels"])) == ("multilabel", "logits", 20)


@pytest.mark.slow
def test_an_artifact_with_other_predictions_is_refused(grid_artifacts):
    """The control: logits with the labels in reverse order fail verification."""
    from export.core.format import formats
    from export.core.manifest import SAMPLES
    from export.core.samples import read_samples
    from export.verification.parity import compare, require

    artifact = grid_artifacts["onnx"]
    runtime, samples = export.load(artifact.path), read_samples(artifact.folder / SAMPLES)
    samples["logits"] = samples["logits"][:, ::-1].copy()
    parity = compare(runtime, samples, formats["onnx"].tolerance, artifact.manifest["metadata"])
    assert not parity.passed
    with pytest.raises(ParityError, match=r"label agreement \d\S* % .*mean average precision") as error:
        require(parity, "it")
    one_line(error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": LossConfig("cross_entropy")}, "The loss of several labels at once must be one of"),
        ({"loss": LossConfig("mse")}, "The loss of several labels at once must be one of"),
        ({"model": ModelConfig("encoder_tiny")}, "must have the task and the kind of input"),
    ],
)
def test_what_does_not_go_with_several_labels_is_refused(voc, changes, message, tmp_path):
    """A loss for classes or numbers, and a model for texts, are refused before a run is created."""
    data = DataConfig("voc2007", path=str(voc), image_size=(32, 32), augment=AugmentConfig())
    made = Recipe("t", **{"model": ModelConfig("resnet_tiny"), "data": data, "epochs": 1, **changes})
    with pytest.raises(BadOption, match=message) as error:
        training.train(made, run=tmp_path / "run")
    one_line(error)
    assert not (tmp_path / "run").exists()


def test_prepared_voc_of_tfds_is_found(tmp_path):
    """Without the kit, the files that TFDS prepared are read; kinds that are only difficult are not evaluated."""
    import tensorflow_datasets as tfds

    builder = tfds.builder("voc/2007", data_dir=tmp_path, try_gcs=False)
    names, features = ("image", "labels", "labels_no_difficult"), dict(builder.info.features.items())
    # Further features of the files, which are not read.
    rest = {"image/filename": "x.jpg", "objects": []}
    examples = [([7, 11], [7]), ([11], [11]), ([], []), ([3], [])]
    made = [dict(zip(names, (pixels(n), *labels), strict=True)) | rest for n, labels in enumerate(examples)]
    splits = {"train": made[:2], "validation": made[2:3], "test": made[3:]}
    prepare(tmp_path, "voc", str(builder.version), features, splits, config="2007")
    dataset = load_dataset(DataConfig("voc2007", path=str(tmp_path)))
    assert (len(dataset.labels), dataset.task) == (20, "multilabel")
    assert marks(dataset, "train") == {0: {"cat": 1, "dog": -1}, 1: {"dog": 1}}
    assert (marks(dataset, "validation"), marks(dataset, "test")) == ({2: {}}, {3: {"boat": -1}})
