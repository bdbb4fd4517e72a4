"""Tasks: losses, metrics and evaluation by hand, ignored padding, and combinations that are refused."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import signal
import time

import numpy as np
import pytest

import training
import zoo
from training import DataConfig, Dataset, LogConfig, LossConfig, ModelConfig, OptimizerConfig, Recipe, Run
from training.checkpoints.files import _read
from training.data.dataset import TargetScale
from training.data.pipeline.opening import open_pipeline
from training.learning.build import build_model, compile_model
from training.learning.evaluation import load_model
from training.learning.metrics import value_metrics
from training.learning.tasks import TASKS, describe_metrics
from zoo.common.errors import BadOption, RunError
from zoo.specs.text import END, START

# One model and one dataset for each task.
KINDS = {
    "classify": ("encoder_tiny", "word_order"),
    "tag": ("tagger_tiny", "word_roles"),
    "generate": ("transformer_tiny", "reverse"),
}
LENGTHS = {"classify": (20,), "tag": (20,), "generate": (12, 13)}


def recipe(task, **changes):
    """Return a recipe of a task: one model, one epoch."""
    model, data = KINDS[task]
    given = {
        "model": ModelConfig(model),
        "data": DataConfig(data, batch_size=8, length=LENGTHS[task]),
        "optimizer": OptimizerConfig("adam", learning_rate=1e-3),
        "epochs": 1,
        "precision": "float32",
        "strategy": "one",
    }
    return Recipe("test", **{**given, **changes})


@functools.cache
def served(task):
    """Return the pipeline of a task."""
    made = recipe(task)
    return open_pipeline(made, zoo.spec(made.model.name))


@functools.cache
def first_batch(task):
    """Return the first training batch of a task."""
    return next(iter(served(task).train(0)))


def compiled(task, jit_compile=False, **changes):
    """Return the compiled model of a task, and its first batch; the changes are not those of its data."""
    made = recipe(task, **changes)
    model = build_model(made, served(task))
    compile_model(model, made, served(task), jit_compile)
    return model, first_batch(task)


def by_hand(task, labels, logits, smoothing=0.0):
    """Return (losses, whether right) of all tokens without padding, token by token in float64."""
    losses, right = [], []
    for sequence, scores in zip(np.asarray(labels), np.asarray(logits, "float64"), strict=True):
        for label, score in zip(sequence, scores, strict=True):
            if not np.any(label):
                continue
            truth = int(label.argmax()) if task == "tag" else int(label)
            log_softmax = score - score.max() - math.log(np.exp(score - score.max()).sum())
            losses.append(-(1 - smoothing) * log_softmax[truth] - smoothing * log_softmax.mean())
            right.append(score.argmax() == truth)
    return losses, right


def batch(task, seed=0, count=4, length=6, classes=5):
    """Return labels with padding at the end, and logits."""
    draw = np.random.default_rng(seed)
    ids = draw.integers(1, classes, (count, length))
    for row, real in zip(ids, draw.integers(1, length, count), strict=True):
        row[real:] = 0
    ids[0, 0] = 1
    labels = np.eye(classes, dtype="float32")[ids] * (ids > 0)[..., None] if task == "tag" else ids.astype("int32")
    return labels, draw.normal(size=(count, length, classes)).astype("float32") * 3


def loss_of(task, labels, logits, smoothing=0.0):
    """Return the loss as Keras computes it: the mean of the task's function over all positions."""
    return float(np.mean(TASKS[task].loss(LossConfig(label_smoothing=smoothing))(labels, logits)))


def metric_of(task, *batches):
    """Return the running metric after some batches."""
    (metric,) = TASKS[task].metrics(None)
    for labels, logits in batches:
        metric.update_state(labels, logits)
    return float(metric.result())


sequences = pytest.mark.parametrize("task", ["tag", "generate"])


@sequences
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_loss_is_the_mean_over_real_tokens(task, smoothing):
    """The loss of a batch is the mean over its tokens without padding, with any label smoothing."""
    labels, logits = batch(task)
    wanted = np.mean(by_hand(task, labels, logits, smoothing)[0])
    assert loss_of(task, labels, logits, smoothing) == pytest.approx(wanted, rel=1e-5)


@sequences
def test_loss_of_known_numbers(task):
    """Two tokens of two classes: ln(1 + e^-1) and ln(1 + e^1), their mean 0.8133; smoothed by 0.2, 0.8133 again."""
    ids = np.array([[2, 1, 0]])
    labels = np.array([[[0, 0, 1], [0, 1, 0], [0, 0, 0]]], "float32") if task == "tag" else ids
    logits = np.array([[[-99.0, 0.0, 1.0], [-99.0, 0.0, 1.0], [5.0, 5.0, 5.0]]], "float32")
    assert loss_of(task, labels, logits) == pytest.approx((math.log(1 + math.exp(-1)) + math.log(1 + math.e)) / 2)
    assert metric_of(task, (labels, logits)) == 0.5


@pytest.mark.parametrize("task", ["tag", pytest.param("generate", marks=pytest.mark.slow)])
def test_loss_that_keras_reports_is_that_of_the_task(task):
    """Loss, without label smoothing, and accuracy of one batch from `evaluate` are the means by hand."""
    model, (x, y) = compiled(task, loss=LossConfig(label_smoothing=0.1))
    losses, right = by_hand(task, y, model(x))
    metrics = model.evaluate(x, y, batch_size=len(y), return_dict=True, verbose=0)
    assert metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert metrics["accuracy"] == pytest.approx(np.mean(right), rel=1e-5)


@sequences
def test_metric_counts_tokens_over_batches(task):
    """The running accuracy weighs each token alike, also in batches of different lengths."""
    batches = [batch(task, seed=1, count=2, length=3), batch(task, seed=2, count=7, length=9)]
    right = [r for labels, logits in batches for r in by_hand(task, labels, logits)[1]]
    assert metric_of(task, *batches) == pytest.approx(np.mean(right), rel=1e-6)


@sequences
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_padding_has_no_influence(task, smoothing):
    """Logits at padding change neither loss, metric nor gradient; logits at a token change all."""
    import tensorflow as tf

    labels, logits = batch(task)
    real = labels.any(-1) if task == "tag" else labels > 0
    assert not real.all()

    def evaluate(values):
        with tf.GradientTape() as tape:
            z = tf.constant(values)
            tape.watch(z)
            loss = tf.reduce_mean(TASKS[task].loss(LossConfig(label_smoothing=smoothing))(labels, z))
        return float(loss), metric_of(task, (labels, values)), tape.gradient(loss, z).numpy()

    noise = np.random.default_rng(3).normal(size=logits.shape).astype("float32") * 100
    before, padding, tokens = (
        evaluate(logits + noise * where[..., None]) for where in (np.zeros_like(real), ~real, real)
    )
    assert before[:2] == padding[:2]
    np.testing.assert_array_equal(before[2], padding[2])
    assert not before[2][~real].any()
    assert before[0] != tokens[0]
    assert before[1] != tokens[1]


@sequences
def test_batch_of_padding_only_has_no_loss(task):
    """A batch without tokens gives no error and no NaN."""
    labels, logits = batch(task)
    assert loss_of(task, labels * 0, logits) == 0.0


@sequences
def test_gradient_of_padded_sequences_is_that_of_each_alone(task):
    """Longer padding gives the same gradients of all weights."""
    import tensorflow as tf

    model, whole = compiled(task)
    x, y = tf.nest.map_structure(lambda t: t[:4], whole)
    loss = TASKS[task].loss(LossConfig(label_smoothing=0.1))

    def gradients(inputs, labels):
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(loss(labels, model(inputs)))
        return [
            np.asarray(tf.convert_to_tensor(g))
            for g in tape.gradient(value, [v.value for v in model.trainable_variables])
        ]

    counts = np.asarray(y).any(-1).sum(-1) if task == "tag" else (np.asarray(y) > 0).sum(-1)
    rows = [gradients(tf.nest.map_structure(lambda t, i=i: t[i : i + 1], x), y[i : i + 1]) for i in range(len(y))]
    for whole, *parts in zip(gradients(x, y), *rows, strict=True):
        wanted = sum(part * n for part, n in zip(parts, counts, strict=True)) / counts.sum()
        np.testing.assert_allclose(whole, wanted, atol=2e-6 + 1e-4 * np.abs(wanted).max())


def test_evaluation_of_tags_is_by_token():
    """Accuracy, loss and confusion count the tokens without padding; examples are sentences."""
    batches = [batch("tag", seed=1, count=2), batch("tag", seed=2, count=3)]
    outputs = iter([logits for _, logits in batches])
    found = TASKS["tag"].evaluate(lambda *_, **__: next(outputs), [(None, labels) for labels, _ in batches])
    losses, right = map(np.concatenate, zip(*(by_hand("tag", *pair) for pair in batches), strict=True))
    assert found["accuracy"] == pytest.approx(np.mean(right))
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert found["examples"] == 5
    confusion = np.array(found["confusion"])
    assert (confusion.sum(), np.trace(confusion)) == (len(right), sum(right))


def generated(model, source, length):
    """Return the tokens that a model generates, with a pass of the whole model for each token."""
    import tensorflow as tf

    target = np.zeros((len(source), length), "int32")
    target[:, 0] = START
    found = np.zeros_like(target)
    step = tf.function(model)
    for i in range(length):
        token = np.asarray(step({"source": tf.constant(source), "target": tf.constant(target)}))[:, i].argmax(-1)
        found[:, i] = np.where((found[:, :i] == END).any(-1), 0, token)
        if i + 1 < length:
            target[:, i + 1] = found[:, i]
    return found


def test_evaluation_of_generation_is_by_generated_texts():
    """Accuracy is the fraction of exactly generated texts; token metrics and loss use teacher forcing."""
    pipeline = served("generate")
    model = build_model(recipe("generate"), pipeline)
    batches = [({k: v.numpy() for k, v in x.items()}, y.numpy()) for x, y in pipeline.evaluate("validation").take(2)]
    # The labels are what an untrained model generates, except for the first example of each batch.
    batches = [(x, np.concatenate([y[:1], generated(model, x["source"], 13)[1:]])) for x, y in batches]
    found = TASKS["generate"].evaluate(model, batches)
    losses, right = map(np.concatenate, zip(*(by_hand("generate", y, model(x)) for x, y in batches), strict=True))
    assert found["accuracy"] == 14 / 16
    assert found["token_accuracy"] == pytest.approx(np.mean(right), rel=1e-5)
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert (found["examples"], found["confusion"]) == (16, None)


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("classify", "sgd"),
        pytest.param("tag", "adamw", marks=pytest.mark.slow),
        pytest.param("generate", "lion", marks=pytest.mark.slow),
        pytest.param("generate", "adam", marks=pytest.mark.slow),
    ],
)
def test_every_task_trains_with_optimizers_of_all_kinds(task, name):
    """Sparse gradients of embeddings pass through clipping, decay and the fused step of SGD."""
    rate = {"sgd": 0.1, "lion": 3e-4}.get(name, 3e-3)
    decay = 0.0 if name == "adam" else 1e-3
    config = OptimizerConfig(name, learning_rate=rate, clip_norm=1.0, weight_decay=decay)
    model, (x, y) = compiled(task, optimizer=config, schedule=training.ScheduleConfig("constant"))
    losses = [float(model.train_on_batch(x, y, return_dict=True)["loss"]) for _ in range(4)]
    model.reset_metrics()
    assert float(model.evaluate(x, y, verbose=0, return_dict=True)["loss"]) < losses[0]


@pytest.mark.slow
@sequences
def test_step_compiles_by_xla(task):
    """The step compiles with XLA, as on a GPU."""
    model, (x, y) = compiled(task, jit_compile=True, loss=LossConfig(label_smoothing=0.1))
    plain, _ = compiled(task, loss=LossConfig(label_smoothing=0.1))
    plain.set_weights(model.get_weights())
    one, two = (float(m.train_on_batch(x, y, return_dict=True)["loss"]) for m in (model, plain))
    assert one == pytest.approx(two, rel=1e-4)


MISMATCHES = [
    ("resnet_tiny", "word_order", r"'resnet_tiny' \(classify, no text\).*'word_order' \(classify, text\)"),
    ("encoder_tiny", "digits", r"'encoder_tiny' \(classify, text\).*'digits' \(classify, no text\)"),
    ("encoder_tiny", "word_roles", r"\(classify, text\).*'word_roles' \(tag, text\)"),
    ("tagger_tiny", "word_order", r"\(tag, text\).*\(classify, text\)"),
    ("transformer_tiny", "word_roles", r"\(generate, text\).*\(tag, text\)"),
    ("tagger_tiny", "reverse", r"\(tag, text\).*\(generate, text\)"),
    ("transformer_tiny", "digits", r"\(generate, text\).*\(classify, no text\)"),
]


@pytest.mark.parametrize(("model", "data", "message"), MISMATCHES)
def test_model_and_data_of_different_tasks_are_refused(model, data, message, tmp_path):
    """A model for another task than the data is refused in one line, and no run is created."""
    with pytest.raises(BadOption, match=message) as error:
        training.train(Recipe("test", ModelConfig(model), DataConfig(data)), run=tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("task", KINDS)
def test_vocabulary_is_no_option_of_the_model(task, tmp_path):
    """The number of tokens follows from the data."""
    made = recipe(task, model=ModelConfig(KINDS[task][0], {"vocabulary": 50}))
    with pytest.raises(BadOption, match=r"follows from the data.*model\.options\.vocabulary=50") as error:
        training.train(made, run=tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.fixture(
    scope="module", params=[pytest.param(task, marks=[pytest.mark.slow] * (task != "tag")) for task in KINDS]
)
def finished(request, tmp_path_factory):
    """A finished run of a task: one epoch in large batches."""
    config = DataConfig(KINDS[request.param][1], batch_size=500, length=LENGTHS[request.param])
    made = recipe(request.param, data=config, loss=LossConfig(label_smoothing=0.1), log=LogConfig(0, 0, 0))
    return request.param, training.train(made, run=tmp_path_factory.mktemp("tasks") / "run")


def test_result_describes_the_task(finished):
    """done.json has the task, its labels and its metrics; another evaluation gives the same metrics."""
    task, run = finished
    result = run.result()
    assert result["task"] == task
    assert result["input_shape"] == list(LENGTHS[task])
    assert bool(result["labels"]) == (task != "generate")
    assert ("token_accuracy" in result["test"]) == (task == "generate")
    assert (result["test"]["confusion"] is None) == (task == "generate")
    again = training.evaluate(run).to_json()
    assert again.pop("loss") == pytest.approx(result["test"].pop("loss"), rel=1e-5)
    assert again == result["test"]
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "images_per_second"} <= set(run.metrics()[0])


def test_commands_evaluate_every_task(finished, zoo_command):
    """`zoo evaluate` prints the metrics of every task, and the name of its examples."""
    _, run = finished
    code, out, err = zoo_command("evaluate", run.path, "--split", "validation")
    assert (code, err) == (0, "")
    assert "examples" in out
    code, out, err = zoo_command("evaluate", run.path, "--json")
    assert json.loads(out)["accuracy"] == run.result()["test"]["accuracy"]
    code, out, err = zoo_command("train", "--resume", run.path)
    assert (code, err) == (0, "")
    assert f"on the {run.result()['test']['examples']} examples of the test split" in out


def when_in_the_middle(path, process):
    """Wait until a run has taken some steps."""
    until = time.monotonic() + 180
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(RunError):
            if _read(path)[1].step >= 3:
                return
        time.sleep(0.01)
    process.kill()
    pytest.fail(f"Never came to step 3: {process.communicate()}")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classify", "generate"])
def test_interrupted_run_on_texts_ends_where_another_does(task, python, tmp_path):
    """A run stopped within an epoch and resumed equals an uninterrupted one: every variable and metric, to the bit."""
    name = {"classify": "word_order_encoder", "generate": "reverse_transformer"}[task]
    changes = {
        "epochs": 1,
        "schedule.warmup_epochs": 0.5,
        "data.batch_size": 200,
        "model.options": {"attention_dropout": 0.1, "projection_dropout": 0.1},
    }
    options = [f"--set={key}={json.dumps(value)}" for key, value in {**changes, "checkpoint_seconds": 0}.items()]
    process = python("-m", "zoo", "train", name, "--quiet", "--run", tmp_path / "broken", *options)
    when_in_the_middle(tmp_path / "broken/checkpoints/last.safetensors", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(180) == 143, process.communicate()
    broken, whole = Run.open(tmp_path / "broken"), training.train(name, changes, run=tmp_path / "whole")
    place = _read(broken.checkpoints / "last.safetensors")[1]
    assert (place.epoch, broken.finished) == (0, False)
    assert place.step > 0
    training.resume(broken)
    (one, _), (two, _) = (_read(run.checkpoints / "last.safetensors") for run in (broken, whole))
    assert {n: a.tobytes() for n, a in one.items()} == {n: a.tobytes() for n, a in two.items()}
    pairs = zip(load_model(broken).get_weights(), load_model(whole).get_weights(), strict=True)
    assert all(a.tobytes() == b.tobytes() for a, b in pairs)
    assert broken.result()["test"]["accuracy"] == whole.result()["test"]["accuracy"]
    assert broken.text() == whole.text()
    # The model loads in a process that has built none.
    out, err = python("-m", "zoo", "evaluate", broken.path).communicate(timeout=180)
    assert (f"accuracy {broken.result()['test']['accuracy']:.4f}" in out, err) == (True, "")


# The minimum of each recipe on its test split.
REACHED = {"word_order_encoder": 0.95, "word_roles_tagger": 0.98, "reverse_transformer": 0.99}


@pytest.mark.slow
@pytest.mark.parametrize("name", REACHED)
def test_full_recipe_on_texts_reaches_its_accuracy(name, tmp_path):
    """A full recipe run is as good as expected: labels that need the order of words, exact sequences."""
    assert training.train(name, run=tmp_path / "run").result()["test"]["accuracy"] >= REACHED[name]


def test_loss_of_numbers_is_that_of_standardized_targets():
    """Targets in the data's own units are compared in standard deviations of the training targets, by hand."""
    data = Dataset("t", ("a", "b"), (3,), {}, task="regress", scale=TargetScale((150.0, 3.0), (80.0, 0.5)))
    truth = np.array([[230.0, 3.0], [70.0, 2.0]], "float32")
    values = np.array([[150.0, 3.5], [70.0, 2.0]], "float32")
    apart = np.array([[1.0, -1.0], [0.0, 0.0]])
    for name, wanted in (("auto", apart**2), ("mse", apart**2), ("mae", abs(apart)), ("huber", apart**2 / 2)):
        loss = TASKS["regress"].loss(LossConfig(name), None, data)
        assert float(np.mean(loss(truth, values))) == pytest.approx(wanted.mean(), rel=1e-6)
    plain = TASKS["regress"].loss(LossConfig())
    assert float(np.mean(plain(truth, values))) == pytest.approx(((truth - values) ** 2).mean(), rel=1e-6)


def test_evaluation_of_regression_matches_scikit_learn():
    """Errors are in the data's own units, R2 is the mean over targets, the loss is in standard deviations."""
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    draw = np.random.default_rng(0)
    truth = (draw.normal(size=(40, 2)) * [10, 0.1] + [100, 1]).astype("float32")
    values = (truth + draw.normal(size=(40, 2)) * [3, 0.05]).astype("float32")
    outputs = iter([values[:25], values[25:]])
    data = Dataset("t", ("a", "b"), (3,), {}, task="regress", scale=TargetScale((100.0, 1.0), (10.0, 0.1)))
    found = TASKS["regress"].evaluate(lambda *_, **__: next(outputs), [(None, truth[:25]), (None, truth[25:])], data)
    assert found["r2"] == pytest.approx(r2_score(truth, values), rel=1e-5)
    assert found["mae"] == pytest.approx(mean_absolute_error(truth, values), rel=1e-5)
    squares = ((truth - values).astype("float64") ** 2).mean()
    assert found["rmse"] == pytest.approx(np.sqrt(squares), rel=1e-5)
    assert root_mean_squared_error(truth[:, :1], values[:, :1]) > found["mae"]
    assert found["loss"] == pytest.approx((((truth - values) / [10, 0.1]) ** 2).mean(), rel=1e-4)
    assert (found["examples"], found["confusion"]) == (40, None)


def test_a_target_that_does_not_vary_has_nothing_to_explain():
    """R2 is 0 for a constant target, without a division by zero."""
    assert value_metrics(np.ones((5, 1)), np.zeros((5, 1)))["r2"] == 0.0


def test_metrics_are_described_by_task():
    """Each task has its own metrics."""
    assert describe_metrics("classify", {"accuracy": 0.5}) == "accuracy 0.5000"
    described = describe_metrics("regress", {"rmse": 60.123456, "mae": 50.0, "r2": 0.25})
    assert described == "RMSE 60.1235, MAE 50.0000, R² 0.2500"
    several = {"mean_average_precision": 0.75, "micro_f1": 0.5, "accuracy": 0.9}
    assert describe_metrics("multilabel", several) == "mAP 0.7500, micro F1 0.5000, accuracy 0.9000"
