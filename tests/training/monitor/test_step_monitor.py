"""Measurements of steps are correct, reach TensorBoard and the run, and change nothing."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import training
from training import Run
from training.checkpoints.files import _read
from zoo.common.errors import BadOption

SMALL = {"model.options": {"widths": [24, 16], "dropout": 0.3}, "epochs": 2, "log.every": 5, "log.misclassified": 0}
# One step of plain SGD per measurement, so that an update is the rate times the gradient.
PLAIN = {"optimizer.name": "sgd", "optimizer.momentum": 0.0, "optimizer.nesterov": False, "optimizer.weight_decay": 0.0}


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A run with measured steps, all options of TensorBoard, and dropout."""
    changes = {**SMALL, **PLAIN, "log.histograms": 1, "log.profile": [2, 3], "log.misclassified": 8}
    changes |= {"optimizer.learning_rate": 0.05, "schedule.name": "constant", "schedule.warmup_epochs": 0}
    return training.train("digits_mlp", changes, run=tmp_path_factory.mktemp("watch") / "run")


def events(run, part):
    """Return what TensorBoard reads of one part, by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run.tensorboard / part), size_guidance={"tensors": 0})
    found.Reload()
    return {tag: found.Tensors(tag) for tag in found.Tags()["tensors"]}


def test_steps_are_measured_at_the_interval(watched):
    """The first step, every fifth and the last are in diagnostics.jsonl, finite, layer by layer in order."""
    rows = watched.diagnostics()
    assert [row["step"] for row in rows] == [1, *range(5, 41, 5)]
    assert [row["epoch"] for row in rows] == [1] * 5 + [2] * 4
    for row in rows:
        assert list(row["gradients"]) == list(row["updates"]) == ["dense1", "dense2", "logits"]
        assert all(math.isfinite(v) and v > 0 for v in (*row["gradients"].values(), *row["updates"].values()))
        assert set(row["dead"]) == {"dense1", "dense2"}
        assert row["gradient_norm"] >= math.hypot(*row["gradients"].values()) * 0.999
        assert row["classes"] == 10


def test_updates_are_the_rate_times_the_gradient(watched):
    """For plain SGD, |update| is rate x |gradient|: two independent measurements agree."""
    row = watched.diagnostics()[0]
    shapes = {"dense1": (64, 24), "dense2": (24, 16), "logits": (16, 10)}
    found = [row["learning_rate"] * row["gradients"][layer] / row["updates"][layer] for layer in shapes]
    assert found == pytest.approx([_norm(shape) for shape in shapes.values()], rel=0.1)


def _norm(shape):
    """Return the norm of a kernel drawn by Glorot's uniform rule."""
    return math.sqrt(np.prod(shape) * 2 / sum(shape))


def test_tensorboard_has_it_all(watched):
    """Scalars by step and by layer, histograms of every weight, a profile, and an image of misclassified examples."""
    steps = events(watched, "steps")
    wanted = {"gradient_norm", "learning_rate", "gradients/dense1", "updates/logits", "dead/dense2"}
    assert wanted <= set(steps)
    assert [event.step for event in steps["gradient_norm"]] == [row["step"] for row in watched.diagnostics()]
    histograms = events(watched, "weights")
    assert {tag.rpartition("/")[2] for tag in histograms} >= {"kernel", "bias"}
    assert [event.step for event in next(iter(histograms.values()))] == [1, 2]
    assert len(list(watched.tensorboard.rglob("*.xplane.pb"))) == 1
    assert {"data_wait", "images_per_second", "loss", "learning_rate"} <= set(events(watched, "train"))


def test_misclassified_are_shown_as_images(watched):
    """The picture is a PNG with the requested number of tiles."""
    import tensorflow as tf

    (event,) = events(watched, "validation")["misclassified"]
    width, height, png = tf.make_ndarray(event.tensor_proto)
    assert (int(width), int(height)) == (640, 368)
    assert tf.io.decode_png(png).shape == (368, 640, 3)


def test_measuring_changes_nothing(tmp_path, watched):
    """The same training without measurements ends in the same weights to the bit, including dropout."""
    changes = watched.recipe.override(
        **{"log.every": 0, "log.histograms": 0, "log.profile": [], "log.misclassified": 0}
    )
    plain = training.train(changes, run=tmp_path / "run")
    assert plain.diagnostics() == []
    ours, theirs = (_read(run.checkpoints / "last.safetensors")[0] for run in (watched, plain))
    assert [key for key, a in ours.items() if a.tobytes() != theirs[key].tobytes()] == []


@pytest.mark.slow
def test_measuring_does_not_change_batch_norm(tmp_path):
    """Measuring units changes no statistics: at every step or never, the weights are the same."""
    changes = {"model.name": "resnet_tiny", "epochs": 1, "data.batch_size": 256, "log.misclassified": 0}
    runs = [
        training.train("digits_resnet", {**changes, "schedule.warmup_epochs": 0, "log.every": n}, run=tmp_path / str(n))
        for n in (0, 2)
    ]
    one, two = (_read(run.checkpoints / "last.safetensors")[0] for run in runs)
    assert [key for key, a in one.items() if a.tobytes() != two[key].tobytes()] == []
    assert [row["step"] for row in runs[1].diagnostics()] == [1, 2, 4, 5]


@pytest.mark.slow
def test_accumulated_steps_are_measured_when_they_update(tmp_path):
    """With gradients of three steps averaged, only steps that change the weights are measured."""
    changes = {**SMALL, "epochs": 1, "optimizer.accumulate": 3, "log.every": 4, "schedule.warmup_epochs": 0}
    rows = training.train("digits_mlp", changes, run=tmp_path / "run").diagnostics()
    assert [row["step"] for row in rows] == [3, 6, 12, 18]
    # The rate of the last step is 0.
    assert all(ratio > 0 for row in rows[:-1] for ratio in row["updates"].values())


def test_norm_is_that_of_the_gradient():
    """The norm inside the compiled step is that of a gradient computed outside of it."""
    import keras
    import tensorflow as tf

    from training.monitor.step_tools import Gradients
    from training.optim.step_hooks import observable

    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(2)])
    model.compile(observable(keras.optimizers.SGD)(), "mse")
    x, y = tf.random.normal((8, 4)), tf.random.normal((8, 2))
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(x) - y))
    wanted = [float(tf.norm(g)) for g in tape.gradient(loss, [v.value for v in model.trainable_variables])]
    gradients = Gradients(model, tf.distribute.get_strategy())
    gradients.enable(True)
    model.train_on_batch(x, y)
    assert list(gradients.norms().values()) == pytest.approx(wanted, rel=1e-5)
    # Without a request, nothing is measured.
    gradients.enable(False)
    model.train_on_batch(x, 100 * y)
    assert list(gradients.norms().values()) == pytest.approx(wanted, rel=1e-5)


def test_dead_and_saturated_units_are_counted():
    """Two of four ReLUs never fire, and one of two sigmoids is saturated."""
    import keras
    import tensorflow as tf

    from training.monitor.units import Units

    inputs = keras.Input((3,))
    x = keras.layers.Dense(4, "relu", name="relu")(inputs)
    x = keras.layers.Dense(2, "sigmoid", name="sigmoid")(x)
    model = keras.Model(inputs, keras.layers.Dense(1, name="out")(x))
    model.get_layer("relu").set_weights([np.zeros((3, 4)), np.array([1.0, -1.0, 2.0, -1.0])])
    model.get_layer("sigmoid").set_weights([np.zeros((4, 2)), np.array([0.0, 9.0])])
    found = Units(model, tf.distribute.get_strategy()).measure((tf.ones((6, 3)), None))
    assert found == {"dead": {"relu": 0.5}, "saturated": {"sigmoid": 0.5}}


def test_wait_for_data_is_measured(tmp_path):
    """A slow pipeline has a wait; a fast one has none."""
    import keras
    import tensorflow as tf

    from training.learning.training_model import as_training_model
    from training.monitor.step_tools import Feed

    def waited(seconds):
        model = as_training_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
        model.compile("sgd", "mse")
        feed = Feed(model)

        def slow(x):
            tf.py_function(lambda: __import__("time").sleep(seconds), [], [])
            return x, x[:, :1]

        model.fit(tf.data.Dataset.from_tensors(tf.ones((4, 2))).repeat(5).map(slow), verbose=0)
        return feed.waited

    assert waited(0.3) > 1.0 > waited(0.0)


def test_stored_rows_survive_a_kill(watched, tmp_path):
    """A truncated line is dropped, the next starts a new line, and repeated measurements replace earlier ones."""
    run = Run.create(watched.recipe, tmp_path / "run")
    for step in (1, 5, 10):
        run.add_diagnostics({"step": step, "value": float("nan")})
    with open(run.path / "diagnostics.jsonl", "ab") as file:
        file.write(b'{"step": 15, "val')
    run.add_diagnostics({"step": 10, "value": 2.0})
    assert run.diagnostics() == [{"step": 1, "value": None}, {"step": 5, "value": None}, {"step": 10, "value": 2.0}]


@pytest.mark.parametrize("profile", [[3], [3, 2], [0, 2]])
def test_bad_profile_is_refused(profile):
    """A profile has a first and a last step."""
    with pytest.raises(BadOption, match=r"log.profile must be \[first step, last step\]"):
        training.get_recipe("digits_mlp").override(**{"log.profile": profile})


@pytest.mark.slow
def test_other_data_shows_misclassified_as_text(tmp_path):
    """Misclassified texts are a table with input, truth, prediction and score."""
    import tensorflow as tf

    changes = {"epochs": 1, "data.batch_size": 256, "log.every": 0, "schedule.warmup_epochs": 0}
    changes |= {"optimizer.learning_rate": 1e-5}
    run = training.train("word_order_encoder", changes, run=tmp_path / "run")
    (event,) = events(run, "validation")["misclassified"]
    lines = tf.make_ndarray(event.tensor_proto).item().decode().splitlines()
    assert lines[0] == "| input | truth | prediction | score |"
    assert 2 < len(lines) <= 18
    assert json.dumps(lines[2]).count(" | ") == 3
