"""Commands that cannot train or evaluate a run end in one line and leave nothing."""

from __future__ import annotations

import pytest

REFUSED = {
    "unknown recipe": (["digit_mlp"], "Did you mean 'digits_mlp'"),
    "no recipe": ([], "either RECIPE"),
    "recipe and resume": (["digits_mlp", "--resume", "x"], "either RECIPE"),
    "resume with a directory": (["--resume", "x", "--run", "y"], "Expected --resume alone"),
    "resume nothing": (["--resume", "nowhere"], "Expected a run directory"),
    "no such option": (["digits_mlp", "--epochs", "3"], "--epochs"),
    "no value": (["digits_mlp", "--set", "epochs"], "key=value"),
    "unknown key": (["digits_mlp", "--set", "epoch=3"], "Did you mean 'epochs'"),
    "below an option": (["digits_mlp", "--set", "model.options.a.b=3"], "model.options"),
    "empty part": (["digits_mlp", "--set", "model.=3"], "model."),
    "wrong type": (["digits_mlp", "--set", "epochs=many"], "a whole number"),
    "out of range": (["digits_mlp", "--set", "epochs=0"], "epochs must be from 1"),
    "negative seed": (["digits_mlp", "--set", "seed=-1"], "seed"),
    "large seed": (["digits_resnet", "--set", "seed=99999999999999999999999"], "seed"),
    "unknown model": (["digits_mlp", "--set", "model.name=resnet_20"], "Did you mean 'resnet20'"),
    "unknown model option": (["digits_mlp", "--set", "model.options.dropot=0.1"], "Did you mean 'dropout'"),
    "impossible model option": (["digits_mlp", "--set", "model.options.dropout=2"], "dropout must be"),
    "image too small": (["digits_resnet", "--set", "model.name=resnet50"], "at least 32x32"),
    "unknown data": (["digits_mlp", "--set", "data.name=digit"], "Did you mean 'digits'"),
    "odd data": (["digits_mlp", "--set", "data.name=mnist:9.9.9"], "mnist:9.9.9"),
    "no folder": (["digits_mlp", "--set", "data.name=folder"], "data.path"),
    "two channels": (["digits_resnet", "--set", "data.channels=2"], "data.channels"),
    "no mean": (["digits_mlp", "--set", "data.preprocessing.mean=[]"], "mean"),
    "two deviations": (["digits_mlp", "--set", "data.preprocessing.std=[1,2]"], "channels"),
    "unknown optimizer": (["digits_mlp", "--set", "optimizer.name=sgdd"], "Did you mean 'sgd'"),
    "wrapping optimizer": (["digits_mlp", "--set", "optimizer.name=multioptimizer"], "optimizer.name"),
    "long warm-up": (["digits_mlp", "--set", "epochs=1"], "schedule.warmup_epochs must be less than"),
    "one with two": (["digits_mlp", "--set", "replicas=2"], "strategy=mirrored"),
    "more replicas than rows": (
        ["digits_mlp", "--set", "strategy=mirrored", "--set", "replicas=8", "--set", "data.batch_size=4"],
        "multiple of the number of replicas",
    ),
    "name that leads elsewhere": (
        ["digits_mlp", "--set", "name=../x", "--set", "epochs=1", "--set", "schedule.warmup_epochs=0"],
        "name",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_command_refuses_in_one_line_and_leaves_nothing(case, tmp_path, monkeypatch, zoo_command):
    """A run that cannot be trained gives exit code 2 and one line with the reason; no run directory is created."""
    arguments, message = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    code, out, err = zoo_command("train", *arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("zoo: ")
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_commands_refuse_a_run_that_is_not_finished(run, zoo_command):
    """Evaluating an unfinished run gives one line with how to finish it."""
    code, out, err = zoo_command("evaluate", run.path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"zoo train --resume {run.path}" in err
