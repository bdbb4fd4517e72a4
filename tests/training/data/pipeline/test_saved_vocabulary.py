"""A run saves the vocabulary that it was trained with, and uses it whatever the data is later."""

from __future__ import annotations

import json
import shutil

import pytest
from loaded_data import one_line
from small_texts import arrays, put, remove, same

import training
import zoo
from training import DataConfig, ModelConfig, Recipe, Run, TextConfig
from training.data.pipeline.opening import open_pipeline
from training.learning.evaluation import open_data
from zoo.common.errors import RunError
from zoo.specs.text import SPECIAL


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run on the small texts, with their words in the training split."""
    put("classify")
    config = DataConfig("test_text", batch_size=4, length=(5,))
    recipe = Recipe("test", ModelConfig("encoder_tiny"), config, epochs=1, precision="float32", strategy="one")
    recipe = recipe.override(**{"log.every": 0, "log.misclassified": 0})
    yield training.train(recipe, run=tmp_path_factory.mktemp("runs") / "run")
    remove()


@pytest.fixture
def text_run(trained, data, tmp_path):
    """A copy of the finished run, and its data."""
    data("classify")
    shutil.copytree(trained.path, tmp_path / "run")
    return Run.open(tmp_path / "run")


def test_run_saves_its_vocabulary(text_run, data):
    """The run uses its saved text config whatever the data is now; a new vocabulary would have other ids."""
    assert Run.open(text_run.path).text() == TextConfig((*SPECIAL, "b", "a", "c"))
    assert json.loads((text_run.path / "text.json").read_text())["vocabulary"] == [*SPECIAL, "b", "a", "c"]
    before, evaluated = arrays(open_data(text_run).evaluate("test")), training.evaluate(text_run)
    data("classify", train=(["zebra c c c c", "b", "b", "zebra"], [0, 1, 1, 0]))
    assert same(arrays(open_data(text_run).evaluate("test")), before)
    assert training.evaluate(text_run) == evaluated
    spec = zoo.spec("encoder_tiny")
    assert not same(arrays(open_pipeline(text_run.recipe, spec).evaluate("test")), before)


def test_resume_uses_the_saved_vocabulary(text_run, data):
    """A resumed run has the ids that it started with."""
    (text_run.path / "done.json").unlink()
    data("classify", train=(["zebra c c c c", "b", "b", "b"], [0, 1, 1, 1]))
    assert training.resume(text_run.path).text() == TextConfig((*SPECIAL, "b", "a", "c"))
    assert training.evaluate(text_run).examples == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "without text.json"), (b"{", "readable JSON"), (b"[]", r"text\.json: the content must be a mapping")],
)
def test_run_without_its_vocabulary_is_refused(text_run, content, message):
    """A missing or damaged vocabulary is never replaced silently."""
    path = text_run.path / "text.json"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(RunError, match=message) as error:
        training.evaluate(text_run.path)
    one_line(error)


def test_images_have_no_vocabulary(digits_run):
    """A run on images has no text config."""
    assert digits_run.text() is None
    assert digits_run.result()["task"] == "classify"
