"""`zoo tune` searches on validation data alone, prunes trials, and resumes after kill -9 to the same result."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path

import pytest

import training
from training import Run
from training.tuning.space import Space, parse_spaces
from training.tuning.study import Study
from zoo.common.errors import BadOption, RunError, TrainingError, UnknownName

SPACES = ("optimizer.learning_rate=0.03|0.000001", "model.options.dropout=0..0.3", "data.batch_size=8|16")
CHANGES = {
    "model.options": {"widths": [16]},
    "epochs": 2,
    "schedule.warmup_epochs": 0,
    "log.every": 0,
    "log.misclassified": 0,
}
# The fifth trial is the first that may be pruned; with this seed, its rate is the low one.
TRIALS, SEED = 5, 3


def command(study):
    """Return the arguments of `zoo` for the study of these tests."""
    sets = [f"--set={key}={json.dumps(value)}" for key, value in CHANGES.items()]
    spaces = [f"--space={space}" for space in SPACES]
    return ["tune", "wine_mlp", *spaces, *sets, f"--trials={TRIALS}", "--study", str(study), f"--seed={SEED}"]


def search(study):
    """Run the study of these tests, or what is left of it."""
    return training.tune("wine_mlp", SPACES, study=study, trials=TRIALS, seed=SEED, overrides=CHANGES)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted study."""
    return search(tmp_path_factory.mktemp("tune") / "whole")


@pytest.fixture
def killed(tmp_path, python):
    """The folder of a study that is killed in its third trial."""
    process = python("-m", "zoo", *command(tmp_path / "killed"), "--quiet")
    until, row = time.monotonic() + 300, tmp_path / "killed/trials/002/metrics.jsonl"
    while not row.is_file() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    process.kill()
    _, err = process.communicate()
    assert process.returncode == -9, err
    # What kill -9 leaves if it interrupts a write to the journal.
    with open(tmp_path / "killed/trials.log", "ab") as file:
        file.write(b'{"op_code": 6, "work')
    (tmp_path / "killed/trials.log.lock").touch()
    return tmp_path / "killed"


@pytest.mark.slow
def test_killed_study_resumes_its_trials(whole, killed):
    """Trials, values and metrics equal those of the uninterrupted study, to the last digit."""
    unfinished = [path.name for path in (killed / "trials").iterdir() if not Run.open(path).finished]
    assert unfinished, "the kill came too late to test anything"
    whole, killed = (
        [{key: value for key, value in trial.to_json().items() if key != "run"} for trial in result.trials]
        for result in (whole, search(killed))
    )
    assert whole == killed
    assert [row["trial"] for row in killed] == list(range(TRIALS))


def test_bad_trials_are_pruned_and_marked(whole):
    """A trial at a rate of 1e-6 is pruned early once there are others to compare with, and its run is marked."""
    pruned = [trial for trial in whole.trials if trial.state == "pruned"]
    assert pruned
    for trial in pruned:
        run = Run.open(trial.run)
        assert trial.values["optimizer.learning_rate"] == 1e-6
        assert trial.epochs < CHANGES["epochs"]
        assert not run.finished
        assert run.pruned["epoch"] == trial.epochs == len(run.metrics())


def test_best_trial_is_the_best(whole):
    """The best trial has the highest validation accuracy, which is that of its run, and the rate that trains."""
    best, trials = whole.best, whole.trials
    assert whole.metric == best.metric == "val_accuracy"
    assert best.value == max(trial.value for trial in trials if trial.state == "complete")
    assert best.values["optimizer.learning_rate"] == 0.03
    # The recipe saves the last weights.
    assert best.value == Run.open(best.run).metrics()[-1]["val_accuracy"]


def test_test_split_is_not_used(whole):
    """No trial is evaluated on the test split, and no file of the study has a metric of it."""
    for trial in whole.trials:
        run = Run.open(trial.run)
        if run.finished:
            assert run.result()["test"]["split"] == "validation"
            assert run.result()["test"]["examples"] == 18


def test_trial_is_a_run_with_its_recipe(whole):
    """The recipe of a trial alone is enough to train the same again."""
    for trial in whole.trials:
        recipe = Run.open(trial.run).recipe
        assert recipe.optimizer.learning_rate == trial.values["optimizer.learning_rate"]
        assert recipe.model.options["dropout"] == trial.values["model.options.dropout"]


def test_importance_is_plotted(whole):
    """The rate is the most important key; both plots are PNG files."""
    importance = whole.importance
    assert set(importance) == {space.partition("=")[0] for space in SPACES}
    assert max(importance, key=lambda key: importance[key]) == "optimizer.learning_rate"
    for name in ("importance.png", "history.png"):
        assert (Path(whole.study) / name).read_bytes().startswith(b"\x89PNG")


def test_command_prints_options_to_copy(whole, zoo_command):
    """A finished study trains no more; the last line has options for `zoo train`."""
    code, out, err = zoo_command(*command(whole.study))
    assert (code, err) == (0, "")
    words = shlex.split(out.splitlines()[-1])
    assert words[::2] == ["--set"] * len(SPACES)
    values = dict(map(training.parse_override, words[1::2]))
    assert values == whole.best.values
    code, out, err = zoo_command(*command(whole.study), "--json")
    assert json.loads(out) == json.loads(json.dumps(whole.to_json()))


def test_study_with_other_settings_is_refused(whole, zoo_command):
    """A study resumes only with its own spaces, recipe and seed."""
    arguments = command(whole.study)
    for changed, key in (("--seed=4", "seed"), ("--set=epochs=6", "recipe"), ("--space=seed=1..5", "spaces")):
        code, out, err = zoo_command(*arguments, changed)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"another {key}" in err


def test_study_in_use_is_refused(whole, tmp_path):
    """Two processes do not run the same study, and a study does not start in a folder with other content."""
    recipe = training.get_recipe("digits_mlp")
    study = Study.open(tmp_path / "one", recipe, [Space("seed", (1, 2))], 1, "none")
    with study.storage(), pytest.raises(RunError, match="no other process in this study"), study.storage():
        pass
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    with pytest.raises(RunError, match="empty or missing folder for a new study"):
        Study.open(tmp_path / "other", recipe, [], 1, "none")


def test_failed_trials_are_reported(tmp_path):
    """Trials with a loss that is not finite do not end the study; if all are such, one line reports why."""
    changes = {**CHANGES, "epochs": 1, "optimizer.name": "sgd"}
    with pytest.raises(TrainingError, match=r"at least one completed trial.*The loss became|no longer finite"):
        training.tune(
            "digits_mlp", ["optimizer.learning_rate=1e30|1e31"], overrides=changes, trials=1, study=tmp_path / "study"
        )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("optimizer.learning_rate=log:1e-3..1e-1", Space("optimizer.learning_rate", (), 1e-3, 0.1, log=True)),
        ("model.options.dropout=0..0.5", Space("model.options.dropout", (), 0, 0.5)),
        ("model.options.dropout=0..1", Space("model.options.dropout", (), 0, 1)),
        ("data.batch_size=log:16..256", Space("data.batch_size", (), 16, 256, log=True, integer=True)),
        ("optimizer.weight_decay=0..1", Space("optimizer.weight_decay", (), 0, 1)),
        ("optimizer.name=sgd|adamw", Space("optimizer.name", ("sgd", "adamw"))),
        ("model.options.widths=[16]|[32,16]", Space("model.options.widths", ([16], [32, 16]))),
    ],
)
def test_spaces_are_read(text, wanted):
    """Ranges, logarithmic ranges, whole numbers where the recipe has them, and lists of anything."""
    assert parse_spaces([text], training.get_recipe("digits_mlp")) == [wanted]


@pytest.mark.parametrize(
    "text",
    [
        "optimizer.learning_rate",
        "optimizer.learning_rate=",
        "optimizer.learning_rate=0.1",
        "optimizer.learning_rate=0.1..0.01",
        "optimizer.learning_rate=log:0..1",
        "optimizer.learning_rat=0.1..0.2",
        "data.batch_size=0..64",
        "data.batch_size=8.5|16",
        "model.options.depht=1|2",
        "model.name=mlp|resnet_tinny",
        "epochs=log:a|b",
    ],
)
def test_bad_spaces_are_one_line(text, zoo_command, tmp_path):
    """A space that cannot be read, or with values that the recipe does not take, is refused before anything trains."""
    code, out, err = zoo_command("tune", "digits_mlp", "--space", text, "--study", tmp_path / "study")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert "Received" in err or "no key" in err
    assert not (tmp_path / "study").exists()


def test_no_space_and_two_of_one_key_are_refused():
    """A study needs a space, and one only for each key."""
    recipe = training.get_recipe("digits_mlp")
    for spaces in ((), ("epochs=1..2", "epochs=3..4")):
        with pytest.raises(BadOption, match="space"):
            parse_spaces(spaces, recipe)
    with pytest.raises((BadOption, UnknownName)):
        training.tune("digits_mlp", ["epochs=1..2"], pruner="medium")
