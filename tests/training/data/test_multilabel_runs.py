"""A complete run on images with several labels: its metrics, and artifacts that predict the same labels."""

from __future__ import annotations

import numpy as np
import pytest
from label_images import annotation
from loaded_data import one_line
from PIL import Image

import export
import training
from training import DataConfig, LogConfig, ModelConfig, OptimizerConfig, Recipe
from zoo.common.errors import ParityError


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
