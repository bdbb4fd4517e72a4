"""Options and weights that `zoo.get` refuses in one line, and the weights that it takes."""

from __future__ import annotations

import warnings

import pytest

import zoo
from zoo.common.errors import BadOption


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Weights of mlp_tiny, and files that are none."""
    folder = tmp_path_factory.mktemp("weights")
    model = zoo.get("mlp_tiny")
    model.save(folder / "whole.keras")
    model.save_weights(folder / "whole.weights.h5")
    for kind in ("keras", "weights.h5"):
        content = (folder / f"whole.{kind}").read_bytes()
        (folder / f"truncated.{kind}").write_bytes(content[: len(content) // 2])
        (folder / f"text.{kind}").write_bytes(b"These are no weights.\n")
        (folder / f"empty.{kind}").write_bytes(b"")
    damaged = bytearray((folder / "whole.keras").read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    (folder / "damaged.keras").write_bytes(damaged)
    (folder / "other.txt").write_text("text")
    return folder


BAD = [
    ("mlp_tiny", {"widht": (3,)}, "Did you mean 'widths'?"),
    ("resnet18", {"width": 3}, "no such option"),
    ("resnet18", {"block": "basic"}, "no such option"),
    ("mlp_tiny", {"widths": 32}, "a list of whole numbers"),
    ("mlp_tiny", {"widths": (1.5,)}, "a list of whole numbers"),
    ("mlp_tiny", {"widths": (0,)}, "at least 1"),
    ("mlp_tiny", {"widths": (3, 4), "depth": 2}, "needs exactly one"),
    ("mlp_tiny", {"depth": -1}, "depth"),
    ("mlp_tiny", {"dropout": "0.1"}, "a number"),
    ("mlp_tiny", {"dropout": 1.0}, "below 1"),
    ("mlp_tiny", {"dropout": -0.1}, "at least 0"),
    ("mlp_tiny", {"dropout": float("nan")}, "dropout must be finite"),
    ("mlp_tiny", {"l1": -1.0}, "at least 0"),
    ("mlp_tiny", {"l2": float("nan")}, "l2 must be finite"),
    ("resnet_tiny", {"dropout": 1.0}, "below 1"),
    ("resnet_tiny", {"dropout": 2.0, "include_top": False}, "below 1"),
    ("resnet_tiny", {"width": 0}, "at least 1"),
    ("resnet_tiny", {"depths": (-1,)}, "at least"),
    ("resnet18", {"depths": (1, 1)}, "depths"),
    ("resnet_tiny", {"zero_init": 1}, "true or false"),
    ("mlp_tiny", {"classes": -1}, "at least 1, or 0"),
    ("mlp_tiny", {"classes": "10"}, "a whole number"),
    ("mlp_tiny", {"classes": True}, "a whole number"),
    ("mlp_tiny", {"include_top": "no"}, "true or false"),
    ("mlp_tiny", {"input_shape": 784}, "a list of whole numbers"),
    ("mlp_tiny", {"input_shape": ()}, "one or more sizes"),
    ("mlp_tiny", {"input_shape": (0,)}, "at least 1"),
    ("resnet18", {"input_shape": (224, 224)}, "(height, width, channels)"),
    ("resnet18", {"input_shape": (224, 224, 3, 1)}, "(height, width, channels)"),
    ("resnet18", {"input_shape": (31, 224, 3)}, "at least 32x32 pixels"),
    ("resnet18", {"input_shape": (224, 224, 0)}, "at least 1"),
    ("resnet18", {"input_shape": (None, None, 3)}, "a list of whole numbers"),
    ("mlp_tiny", {"activation": "sofmax"}, "Did you mean 'softmax'?"),
    ("mlp_tiny", {"activation": 3}, "activation"),
    ("mlp_tiny", {"dtype": "float31"}, "mixed_bfloat16"),
    ("mlp_tiny", {"dtype": 16}, "mixed_bfloat16"),
    ("mlp_tiny", {"dtype": "int32"}, "mixed_bfloat16"),
    ("mlp_tiny", {"weights": 3}, "weights"),
    ("mlp_tiny", {"weights": ""}, "path of an existing"),
]


@pytest.mark.tensorflow
@pytest.mark.parametrize(("name", "options", "hint"), BAD, ids=[f"{name}-{options}" for name, options, _ in BAD])
def test_bad_option_is_refused(name, options, hint, message):
    """A wrong option is a ValueError of one line, and the dtype policy is as before."""
    import keras

    before = keras.config.dtype_policy()
    with pytest.raises(BadOption) as error:
        zoo.get(name, **options)
    assert hint in message(error)
    assert isinstance(error.value, ValueError)
    assert keras.config.dtype_policy() == before


@pytest.mark.tensorflow
def test_bad_activation_suggests_activations_only():
    """What the message offers are activations that can be given, not other functions of Keras' module."""
    import keras

    with pytest.raises(BadOption) as error:
        zoo.get("mlp_tiny", activation="?")
    offered = str(error.value).partition("Known: ")[2].rstrip(" .…,").split(", ")
    assert offered
    assert all(callable(keras.activations.get(name)) for name in offered)


BAD_FILES = [
    "missing.keras", "missing.weights.h5", "", "other.txt", "text.keras", "text.weights.h5", "empty.keras",
    "empty.weights.h5", "truncated.keras", "truncated.weights.h5", "damaged.keras",
]  # fmt: skip


@pytest.mark.tensorflow
@pytest.mark.parametrize("file", BAD_FILES)
def test_bad_weights_are_refused(files, file, message):
    """A path that is missing or a folder, or a file that holds no weights, is one line with the path."""
    with pytest.raises(BadOption) as error:
        zoo.get("mlp_tiny", weights=str(files / file))
    assert f"Received: weights={str(files / file)!r}" in message(error)


@pytest.mark.tensorflow
@pytest.mark.parametrize("file", ["whole.keras", "whole.weights.h5"])
@pytest.mark.parametrize("name", ["mlp", "mlp_mnist", "resnet20"])
def test_weights_of_another_model_are_refused(files, file, name, message):
    """Weights that do not fit are one line, without a warning for each layer."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(BadOption, match=f"weights must fit {name}. Received: weights=") as error:
            zoo.get(name, weights=str(files / file))
    message(error)
    assert [str(w.message)[:80] for w in seen if issubclass(w.category, UserWarning)] == []


@pytest.mark.tensorflow
@pytest.mark.parametrize("file", ["whole.keras", "whole.weights.h5"])
def test_good_weights_are_loaded(files, file):
    """The control: the same file fits its own model, also as a Path."""
    zoo.get("mlp_tiny", weights=str(files / file))
    zoo.get("mlp_tiny", weights=files / file)
