"""Models do not depend on the user's Keras configuration, which stays as it was."""

from __future__ import annotations

import functools
import json

import keras
import numpy as np
import pytest

import zoo

SMALLEST = [min(zoo.list_models(family=f), key=lambda name: zoo.spec(name).params) for f in zoo.list_families()]
OUTPUTS = """
import keras, numpy as np, zoo

def outputs(names):
    before = keras.config.image_data_format(), keras.config.floatx(), keras.config.epsilon()
    found = {}
    for name in names:
        model = zoo.get(name, dtype="float32")
        model.set_weights([np.cos(np.arange(w.size).reshape(w.shape)) * w.size**-0.5 for w in model.get_weights()])
        inputs = [np.ones((1, *x.shape[1:]), x.dtype) for x in model.inputs]
        values = model(inputs if len(inputs) == 1 else dict(zip(("source", "target"), inputs)))
        found[name] = [np.asarray(y, "float64").sum(axis=-1).tolist() for y in keras.tree.flatten(values)]
    assert before == (keras.config.image_data_format(), keras.config.floatx(), keras.config.epsilon())
    return before, found
"""
BUILD = (
    OUTPUTS
    + """
import json, sys
print(json.dumps(outputs(sys.argv[1:])))
"""
)


def home(folder, **content):
    """A Keras home with a configuration file; returns the environment that uses it."""
    (folder / "keras.json").write_text(json.dumps({"backend": "tensorflow", "epsilon": 1e-7, **content}))
    return {"KERAS_HOME": str(folder)}


@functools.cache
def plain(names):
    """Outputs under Keras' defaults."""
    namespace = {}
    exec(OUTPUTS, namespace)
    before, found = namespace["outputs"](names)
    assert before == ("channels_last", "float32", 1e-7)
    return found


ALL_DIFFER = {"image_data_format": "channels_first", "floatx": "float64", "epsilon": 1e-3}


@pytest.mark.parametrize(
    ("names", "content"),
    [
        (SMALLEST[::4], ALL_DIFFER),
        pytest.param(SMALLEST, ALL_DIFFER, marks=pytest.mark.slow),
        pytest.param(SMALLEST, {"image_data_format": "channels_first", "floatx": "float32"}, marks=pytest.mark.slow),
        pytest.param(SMALLEST, {"image_data_format": "channels_last", "floatx": "float16"}, marks=pytest.mark.slow),
    ],
)
def test_models_are_the_same(names, content, printed, tmp_path):
    """The smallest models of families give the same outputs, and the configuration is as the file sets it."""
    before, found = printed("-c", BUILD, *names, env=home(tmp_path, **content))
    assert before == [content["image_data_format"], content["floatx"], content.get("epsilon", 1e-7)]
    expected = plain(tuple(names))
    for name in names:
        for mine, theirs in zip(found[name], expected[name], strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_global_state_is_restored():
    """The data format and the dtype policy are as before a build, also after one that fails."""
    before = keras.config.image_data_format(), keras.config.dtype_policy()
    keras.config.set_image_data_format("channels_first")
    try:
        model = zoo.get("resnet_tiny", dtype="mixed_bfloat16")
        with pytest.raises(zoo.BadOption):
            zoo.get("resnet_tiny", depths=(0, 1, 1))
        assert keras.config.image_data_format() == "channels_first"
        assert keras.config.dtype_policy() == before[1]
    finally:
        keras.config.set_image_data_format(before[0])
    assert model.get_config() == zoo.get("resnet_tiny", dtype="mixed_bfloat16").get_config()


RUN = ["--set", "model.name=resnet_tiny", "--set", "epochs=1", "--set", "schedule.warmup_epochs=0", "--quiet"]


@pytest.mark.slow
def test_commands_work_under_channels_first(python, tmp_path):
    """Training, evaluation and export run under another configuration of Keras."""
    env = home(tmp_path, image_data_format="channels_first", floatx="float64", epsilon=1e-3)
    run = tmp_path / "run"
    for arguments in (
        ["train", "digits_resnet", "--run", run, *RUN],
        ["evaluate", run],
        ["export", run, "--format", "onnx"],
    ):
        process = python("-m", "zoo", *arguments, env=env)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, (arguments, out, err)


@pytest.mark.parametrize(
    ("content", "reason"), [({"floatx": "bfloat16"}, "floatx"), ({"backend": "tensorflwo"}, "tensorflwo")]
)
def test_invalid_configuration_is_one_line(python, tmp_path, content, reason):
    """A configuration that Keras refuses is one line with the file's path and exit code 2."""
    process = python("-m", "zoo", "train", "digits_mlp", "--run", tmp_path / "run", env=home(tmp_path, **content))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.startswith("zoo: Expected a Keras configuration")
    assert reason in err
    assert "keras.json" in err
    assert err.count("\n") == 1
