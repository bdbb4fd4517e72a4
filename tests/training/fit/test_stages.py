"""Fine-tuning in stages: what each trains, on which features, at which rate, and that it resumes to the bit."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import training
import zoo
from training.checkpoints.files import _read
from training.fit.session import Session
from training.learning.trunk import head_layers, split_model
from zoo.common.errors import BadOption

SHAPE = (8, 8, 1)
QUICK = {
    "model.name": "resnet_tiny",
    "model.options": {},
    "epochs": 2,
    "schedule.name": "constant",
    "schedule.warmup_epochs": 0,
    "optimizer.learning_rate": 0.01,
    "data.augment.rotate": 0,
    "data.augment.shift": 0,
    "data.augment.zoom": 0,
    "data.batch_size": 60,
    "loss.label_smoothing": 0,
    "precision": "float32",
    "save": "last",
    "log.misclassified": 0,
}
STAGED = {"finetune.stages": ["head", "all"], "finetune.milestones": [1]}


class Killed(Exception):
    """Stands for the end of a process in the middle of training."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of another task, with statistics that are not those of new layers."""
    path = tmp_path_factory.mktemp("weights") / "weights.keras"
    keras.utils.set_random_seed(1)  # of random weights, some leave all units of a layer inactive
    model = zoo.get("resnet_tiny", input_shape=SHAPE, classes=3)
    draw = np.random.default_rng(0)
    for variable in model.weights:
        if variable.name in ("moving_mean", "moving_variance"):
            variable.assign(np.asarray(variable) + draw.uniform(0.1, 0.5, variable.shape))
    model.save(path)
    return path


def trained(path, weights, /, **changes):
    """Train, and return the values of the saved model by the path of each weight."""
    run = training.train("digits_resnet", {**QUICK, "model.weights": str(weights), **changes}, run=path)
    return run, values(run.model_path)


def values(path):
    """Return the weights in a file by their paths."""
    return {v.path: np.asarray(v) for v in keras.saving.load_model(path).weights}


def changed(one, other):
    """Return the paths of the weights that differ."""
    return {name for name in other if name in one and not np.array_equal(one[name], other[name])}


def kinds(paths):
    """Return the names of weights without their layers."""
    return {path.rpartition("/")[2] for path in paths}


def test_the_head_alone_trains_first(weights, tmp_path):
    """A stage of the head leaves weights and statistics of the trunk as they were, to the bit."""
    start = {name: value for name, value in values(weights).items() if "logits" not in name}
    run, head = trained(tmp_path / "head", weights, **{"finetune.stages": ["head"], "epochs": 1})
    assert changed(start, head) == set()
    assert np.abs(head["logits/kernel"]).max() > 0
    # The file is a plain model: Keras can train all of it.
    assert all(layer.trainable for layer in keras.saving.load_model(run.model_path).layers)
    assert run.result()["parameters"] == zoo.get("resnet_tiny", input_shape=SHAPE, classes=10).count_params() - sum(
        value.size for name, value in head.items() if "moving" in name
    )
    measured = run.diagnostics()
    assert {tuple(row["gradients"]) for row in measured} == {("logits",)}


@pytest.fixture(scope="module", params=["auto", pytest.param("off", marks=pytest.mark.slow)])
def staged(request, weights, tmp_path_factory):
    """How batch normalization is frozen, a run of the head and then of all, and the values of its model."""
    stages = {**STAGED, "finetune.milestones": [2], "finetune.learning_rates": [0.02, 0.005]}
    changes = {"schedule.name": "cosine", "epochs": 4, "log.every": 0, "finetune.freeze_batch_norm": request.param}
    return request.param, *trained(tmp_path_factory.mktemp("staged") / "run", weights, **stages, **changes)


def test_then_all_train(weights, staged):
    """The second stage trains the trunk; small batches leave the statistics alone, unless they are to be updated."""
    batch_norm, run, both = staged
    start = {name: value for name, value in values(weights).items() if "logits" not in name}
    expected = {"kernel", "gamma", "beta"} | ({"moving_mean", "moving_variance"} if batch_norm == "off" else set())
    assert kinds(changed(start, both)) == expected
    rows = run.metrics()
    assert rows[2]["loss"] < rows[0]["loss"]


@pytest.mark.slow
def test_layers_from_a_block_on_train(weights, tmp_path):
    """A stage can start at a block; a name that no layer has is refused with the blocks."""
    start = {name: value for name, value in values(weights).items() if "logits" not in name}
    changes = {"finetune.stages": ["stage2"], "epochs": 1}
    _, found = trained(tmp_path / "run", weights, **changes)
    moved = changed(start, found)
    assert moved
    assert {name.partition("_")[0] for name in set(start) - moved} >= {"stem", "stage1"}
    assert {name.partition("_")[0] for name in moved}.isdisjoint({"stem", "stage1"})
    with pytest.raises(BadOption, match=r"must name a layer or block of resnet_tiny.*'stage9'.*stage2"):
        trained(tmp_path / "no", weights, **{**changes, "finetune.stages": ["stage9"]})
    assert not (tmp_path / "no").exists()


def test_each_stage_has_its_learning_rate(staged):
    """Schedules start again in each stage."""
    _, run, _ = staged
    steps = run.result()["splits"]["train"] // 60
    found = [row["learning_rate"] for row in run.metrics()]
    # The rate after an epoch is that of the next step.
    half = 0.5 * (1 + np.cos(np.pi * steps / (2 * steps)))
    np.testing.assert_allclose(found, [0.02 * half, 0.0, 0.005 * half, 0.0], atol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            {"finetune.views": 1, "optimizer.name": "adamw", "optimizer.momentum": 0.9}, marks=pytest.mark.slow
        ),
        pytest.param(
            {"optimizer.ema": 0.9, "optimizer.accumulate": 2, "optimizer.layer_decay": 0.7}, marks=pytest.mark.slow
        ),
        pytest.param(
            {"finetune.views": 2, "data.augment.shift": 0.1, "precision": "mixed_bfloat16"}, marks=pytest.mark.slow
        ),
        pytest.param({"precision": "mixed_float16", "optimizer.ema": 0.9}, marks=pytest.mark.slow),
    ],
    ids=["views", "ema", "bfloat16", "float16"],
)
def test_it_resumes_to_the_bit(weights, tmp_path, monkeypatch, options):
    """A training that is killed in each stage and between them ends like one that is not."""
    options = {**STAGED, **options, "finetune.freeze_batch_norm": "off"}
    whole, _ = trained(tmp_path / "whole", weights, **options)
    end_step, kills = Session._end_step, [(0, 7), (0, whole.result()["splits"]["train"] // 60), (1, 5)]

    def end_and_die(session, step, logs, display):
        end_step(session, step, logs, display)
        if kills and (session.progress.epoch, step) == kills[0]:
            kills.pop(0)
            raise Killed

    monkeypatch.setattr(Session, "_end_step", end_and_die)
    path = tmp_path / "broken"
    with pytest.raises(Killed):
        trained(path, weights, **options, checkpoint_seconds=0)
    for _ in range(2):
        with pytest.raises(Killed):
            training.resume(path)
    broken = training.resume(path)
    assert not kills
    one, other = (_read(run.checkpoints / "last.safetensors")[0] for run in (whole, broken))
    assert one.keys() == other.keys()
    assert [name for name in one if one[name].tobytes() != other[name].tobytes()] == []
    drop = ("seconds", "images_per_second", "data_wait")
    rows = [[{k: v for k, v in row.items() if k not in drop} for row in run.metrics()] for run in (whole, broken)]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_patience_starts_with_the_last_stage(weights, tmp_path):
    """Without progress, the stages before the last are trained to their end, and the last stops early."""
    stages = {**STAGED, "finetune.milestones": [3], "finetune.views": 1, "optimizer.learning_rate": 1e-20}
    run, _ = trained(tmp_path / "run", weights, **{**stages, "epochs": 6, "regularize.patience": 1})
    assert (run.result()["epochs"], run.result()["ended"]) == (4, "patience")


@pytest.mark.slow
def test_cached_features_train_the_same_head(weights, tmp_path):
    """Features that are computed once give the head, and the metrics, of a trunk that computes them each epoch."""
    runs = [
        trained(tmp_path / f"views{views}", weights, **{"finetune.stages": ["head"], "finetune.views": views})
        for views in (0, 1)
    ]
    (plain, one), (cached, other) = runs
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, rtol=1e-3, atol=1e-5)
    for row, again in zip(plain.metrics(), cached.metrics(), strict=True):
        assert again["val_loss"] == pytest.approx(row["val_loss"], rel=1e-3)
    # The control: another seed gives another head.
    _, control = trained(tmp_path / "other", weights, **{"finetune.stages": ["head"], "finetune.views": 1, "seed": 2})
    assert not np.allclose(control["logits/kernel"], one["logits/kernel"], 1e-3, 1e-5)


def test_the_head_is_what_follows_the_features():
    """Of families with other heads too, head and trunk compose to the model."""
    for name, options, classifiers in (
        ("mlp_tiny", {}, ["logits"]),
        ("vit_micro_tiny", {"dropout": 0.1}, ["logits"]),
        ("googlenet_tiny", {"auxiliary": True}, ["auxiliary1", "auxiliary2", "logits"]),
    ):
        model = zoo.get(name, **options)
        assert sorted(layer.name for layer in head_layers(model)) == classifiers
        trunk, head = split_model(model)
        x = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")
        for ours, whole in zip(
            keras.tree.flatten(head(trunk(x, training=False), training=False)),
            keras.tree.flatten(model(x, training=False)),
            strict=True,
        ):
            np.testing.assert_allclose(ours, whole, rtol=1e-5, atol=1e-6)


def test_weights_are_asked_for_before_data_is_read(zoo_command):
    """The recipe for own images needs pretrained weights, and says so in one line."""
    code, out, error = zoo_command("train", "finetune", "--set", "data.path=nowhere")
    assert (code, out) == (2, "")
    assert "Fine-tuning needs pretrained weights. Received: model.weights=''" in error
    assert error.count("\n") == 1


REPLICAS = """
import json, sys
import numpy as np
import training
from training.checkpoints.files import _read
from pathlib import Path

folder, changes, found = Path(sys.argv[1]), eval(sys.argv[2]), []
for strategy, count in eval(sys.argv[3]):
    run = training.train("digits_resnet", {**changes, "strategy": strategy, "replicas": count}, run=folder / str(count))
    found.append((_read(run.checkpoints / "last.safetensors")[0], run.metrics()))
one, two = (arrays for arrays, _ in found)
apart = {name: float(np.linalg.norm(two[name] - one[name]) / (np.linalg.norm(one[name]) + 1e-9)) for name in one
         if name.startswith("model") and one[name].dtype == "float32"}
print(json.dumps({"apart": max(apart.values()), "losses": [[row["loss"] for row in rows] for _, rows in found]}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("views", "backend"), [(0, "tensorflow"), (1, "tensorflow"), (0, "jax")], ids=["images", "features", "jax"]
)
def test_several_devices_train_the_same(weights, tmp_path, printed, views, backend):
    """Two devices end with the weights of one, up to rounding; on JAX too."""
    changes = {
        **QUICK,
        **STAGED,
        "model.weights": str(weights),
        "finetune.views": views,
        "optimizer.learning_rate": 1e-3,
    }
    how = [("mirrored", 2), ("one", 0)]
    environment = {"KERAS_BACKEND": backend, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    found = printed("-c", REPLICAS, tmp_path, repr(changes), repr(how), env=environment)
    assert found["apart"] < 1e-3
    assert found["losses"][0] == pytest.approx(found["losses"][1], rel=1e-3)
    assert found["losses"][0][1] < found["losses"][0][0]
