"""Statistics of the training examples of tables and images: NumPy's, from batches, and without leaks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from loaded_data import one_line, rows
from small_images import fill, save
from small_tables import served, written

import zoo
from training import DataConfig, ModelConfig, Recipe
from training.data.pipeline.opening import open_pipeline, training_statistics
from training.data.pipeline.statistics import moments, streamed
from training.data.readers.loading import load_dataset
from zoo.common.errors import BadOption


def columns_of(pipeline):
    """Return the training rows as float64."""
    return pipeline.raw("train", 10_000)[0].astype("float64")


def test_statistics_are_those_of_numpy_on_iris():
    """Each normalization is NumPy's formula on the training rows in float64."""
    raw = columns_of(served("iris"))
    for method, mean, std in (
        ("channel", raw.mean(0), raw.std(0)),
        ("", raw.mean(0), raw.std(0)),
        ("zscore", [raw.mean()], [raw.std()]),
        ("minmax", raw.min(0), raw.max(0) - raw.min(0)),
    ):
        preprocessing = served("iris", normalize=method).preprocessing
        np.testing.assert_allclose(preprocessing.mean, np.broadcast_to(mean, 4), rtol=1e-12)
        np.testing.assert_allclose(preprocessing.std, np.broadcast_to(std, 4), rtol=1e-12)
    x = np.concatenate([np.asarray(x) for x, _ in served("iris", normalize="minmax").train(0)])
    assert x.min() >= 0
    assert x.max() <= 1 + 1e-6


def test_robust_statistics_are_quartiles(tmp_path):
    """Median and distance of the quartiles of each number, or half its range; missing cells are filled before."""
    draw = np.random.default_rng(0)
    rows = [(i if i % 7 else "", "3.5" if i % 30 else "5.5", "ab"[draw.integers(2)], "xy"[i % 2]) for i in range(120)]
    path = written(tmp_path / "t.csv", ("a", "b", "c", "y"), rows)
    pipeline = served("table", path=path, normalize="robust")
    raw, found = columns_of(pipeline), pipeline.preprocessing
    low, middle, high = np.quantile(raw, (0.25, 0.5, 0.75), axis=0)
    np.testing.assert_allclose(found.mean, [middle[0], 0, 3.5, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(found.std, [(high - low)[0], 1, 1, 1, 1], rtol=1e-6)
    assert pipeline.dataset.table.parts == (1, -1, 1, -2)
    with pytest.raises(BadOption, match=r"data\.normalize=robust applies to tables. Received: digits") as error:
        served("digits", normalize="robust")
    one_line(error)


@pytest.mark.parametrize(
    "method", ["channel", *(pytest.param(name, marks=pytest.mark.slow) for name in ("minmax", "zscore"))]
)
def test_statistics_are_those_of_numpy_on_digits(method):
    """For images, statistics are over all values or each channel; they replace the data's preprocessing."""
    from training.datasets.digits import TRAIN, load_pixels

    pixels = load_pixels()[0][TRAIN.start : TRAIN.stop].astype("float64")
    preprocessing = served("digits", normalize=method).preprocessing
    wanted = (pixels.min(), np.ptp(pixels)) if method == "minmax" else (pixels.mean(), pixels.std())
    assert (preprocessing.mean[0], preprocessing.std[0]) == pytest.approx(wanted, rel=1e-14)
    assert served("digits").preprocessing == load_dataset(DataConfig("digits")).preprocessing


def test_statistics_of_a_stream_are_those_of_the_whole():
    """Batches lose no precision, also for large values with small differences."""
    values = np.random.default_rng(0).normal(1e6, 1e-2, (1000, 5, 3))
    whole, parts = moments(values), streamed(np.array_split(values, 13))
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(parts.std, values.std((0, 1)), rtol=1e-7)
    np.testing.assert_allclose(parts.over_all().std, [values.std()], rtol=1e-7)
    assert (parts.low == whole.low).all()
    assert (parts.high == whole.high).all()


def test_indicator_columns_are_not_scaled(people):
    """Numbers of a table are scaled; gaps and categories stay 0 and 1. A constant column is divided by 1."""
    pipeline = served("table", path=people)
    assert pipeline.dataset.table.is_number() == [True, False, False, False, False]
    assert pipeline.preprocessing.mean[1:] == (0.0,) * 4
    assert pipeline.preprocessing.std[1:] == (1.0,) * 4
    x = np.concatenate([np.asarray(x) for x, _ in pipeline.evaluate("train")])
    assert abs(x[:, 0].mean()) < 1e-6
    assert set(np.unique(x[:, 1:])) == {0.0, 1.0}


def test_constant_columns_are_harmless(tmp_path):
    """They cause no division by zero where they are named; otherwise they are left out."""
    path = written(tmp_path / "t.csv", ("a", "b", "y"), [(3, i, "xy"[i % 2]) for i in range(30)])
    assert served("table", path=path).dataset.table.names == ("b",)
    preprocessing = served("table", path=path, columns=("a", "b")).preprocessing
    assert (preprocessing.mean[0], preprocessing.std[0]) == (3.0, 1.0)


def changed(dataset, split):
    """Return a dataset with entirely different cells in a split."""
    rows = np.fromiter((x for x, _ in dataset.splits[split].examples.as_numpy_iterator()), "int64")

    def corrupt(cells):
        numbers = cells.numbers.copy()
        numbers[rows] = 9999
        return dataclasses.replace(cells, numbers=numbers)

    columns = {name: corrupt(cells) for name, cells in dataset.cells.columns.items()}
    return dataclasses.replace(dataset, cells=dataclasses.replace(dataset.cells, columns=columns))


@pytest.mark.parametrize("method", ["minmax", "zscore", "channel", "robust"])
@pytest.mark.parametrize("name", ["iris", pytest.param("diabetes", marks=pytest.mark.slow)])
def test_nothing_leaks_from_validation_or_test(name, method, monkeypatch):
    """Validation and test examples do not change columns, statistics or scale; training examples do."""
    import training.data.pipeline.opening as opening

    data = load_dataset(DataConfig(name, normalize=method))
    found = {}
    for split in ("", "validation", "test", "train"):
        given = changed(data, split) if split else data
        monkeypatch.setattr(opening, "open_dataset", lambda *_, given=given: given)
        found[split] = training_statistics(served(name, normalize=method))
    assert found[""] == found["validation"] == found["test"]
    assert found["train"]["preprocessing"] != found[""]["preprocessing"]


def test_test_rows_add_no_columns(people, tmp_path):
    """A category or gap that occurs only in test rows is not in the column schema."""
    names, *rows = [line.split(",") for line in Path(people).read_text(encoding="utf-8").split()]
    test = {x for x, _ in load_dataset(DataConfig("table", path=people)).splits["test"].examples.as_numpy_iterator()}
    changed_rows = [[row[0], "elsewhere", row[2]] if row[0] and i in test else row for i, row in enumerate(rows)]
    assert changed_rows != rows
    other = written(tmp_path / "other.csv", names, changed_rows)
    one, two = served("table", path=people), served("table", path=other)
    found = [training_statistics(pipeline) for pipeline in (one, two)]
    # The files are others, by their digests.
    assert found[0].pop("files") != found[1].pop("files")
    assert found[0] == found[1]
    found = two.raw("test", 100)[0]
    # Rows without an age are not changed.
    assert not found[found[:, 1] == 0][:, 2:].any()


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
