"""Tasks: evaluation by hand, steps with each kind of optimizer, and combinations that are refused."""

from __future__ import annotations

import numpy as np
import pytest
from text_tasks import KINDS, batch, by_hand, compiled, recipe, sequences, served

import training
from training import DataConfig, LossConfig, ModelConfig, OptimizerConfig, Recipe
from training.learning.build import build_model
from training.learning.tasks import TASKS, describe_metrics
from zoo.common.errors import BadOption
from zoo.specs.text import END, START


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


def test_metrics_are_described_by_task():
    """Each task has its own metrics."""
    assert describe_metrics("classify", {"accuracy": 0.5}) == "accuracy 0.5000"
    described = describe_metrics("regress", {"rmse": 60.123456, "mae": 50.0, "r2": 0.25})
    assert described == "RMSE 60.1235, MAE 50.0000, R² 0.2500"
    several = {"mean_average_precision": 0.75, "micro_f1": 0.5, "accuracy": 0.9}
    assert describe_metrics("multilabel", several) == "mAP 0.7500, micro F1 0.5000, accuracy 0.9000"
