"""The registry: finding names, refusing wrong ones, and models of third parties."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import warnings

import pytest

import zoo
from export.core.format import formats
from training.data.dataset import datasets
from training.recipe.recipe import recipes
from zoo import build
from zoo.common.errors import BadOption, DuplicateName, UnknownName, ZooError
from zoo.specs import registry as registry_module

TOY = zoo.ModelSpec((4,), 2, paper="none", tags=("toy",))


def toy(x, head):
    """A builder of nothing but the head."""
    return head(x)


@pytest.fixture
def added(monkeypatch):
    """Registers models that no other test sees."""
    zoo.list_models()
    for table in ("_entries", "_origins"):
        monkeypatch.setattr(registry_module.models, table, dict(getattr(registry_module.models, table)))
    return zoo.register_model


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


def message(error):
    """The text of a ZooError, which is one line with the received value."""
    text = str(error.value)
    assert isinstance(error.value, ZooError)
    assert "Received: " in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("patterns", "options", "expected"),
    [
        (["resnet18"], {}, ["resnet18"]),
        (["resnet?0"], {}, ["resnet20", "resnet50"]),
        (["resnet[13]*"], {"exclude": ["resnet3*", "*_v?"]}, ["resnet18", "resnet101", "resnet110", "resnet152"]),
        (["resnet5?", "mlp_*"], {"exclude": ["*50", "*_tiny"]}, ["mlp_mnist", "resnet56"]),
        (["mlp*", "resnet18"], {"family": "resnet"}, ["resnet18"]),
        (["mlp*"], {"tag": "small"}, [n for n in zoo.list_models("mlp*") if "small" in zoo.spec(n).tags]),
        (["resnet1[08]*", "googlenet"], {"pretrained": True, "exclude": "*_v?"}, ["resnet18", "resnet101"]),
        (["RESNET*"], {}, []),
        (["nothing*"], {}, []),
    ],
)
def test_names(patterns, options, expected):
    """Wildcards, what is left out and the family choose the names, in natural order."""
    assert zoo.list_models(*patterns, **options) == expected


def test_natural_order():
    """Numbers in names count as numbers."""
    names = zoo.list_models()
    assert names.index("resnet18") < names.index("resnet20") < names.index("resnet101") < names.index("resnet110")
    assert sorted(["a10", "a9b", "a", "a9", "b1"], key=registry_module.natural) == ["a", "a9", "a9b", "a10", "b1"]


def test_families():
    """Every family has names, and every name one family."""
    assert {"fcnn", "resnet"} <= set(zoo.list_families())
    assert zoo.list_families() == sorted(set(zoo.list_families()))
    assert sorted(n for f in zoo.list_families() for n in zoo.list_models(family=f)) == sorted(zoo.list_models())


def test_spec_is_frozen():
    """What is known of a model cannot be changed."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        zoo.spec("resnet50").params = 1


def test_duplicate_is_refused(added):
    """A taken name is an error, and leaves the first entry."""
    with pytest.raises(DuplicateName, match="registered already") as error:
        added("resnet50", TOY, params=1)(toy)
    message(error)
    assert zoo.spec("resnet50").params == 25_557_032


@pytest.mark.parametrize("look_up", [zoo.get, zoo.spec])
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet500", "Did you mean 'resnet50'?"),
        ("ResNet50", "Did you mean 'resnet50'?"),
        ("mlp-mnist", "Did you mean 'mlp_mnist'?"),
        ("", "Known: alexnet, "),
        (None, "Known: alexnet, "),
        (["resnet50"], "Did you mean 'resnet50'?"),
    ],
)
def test_unknown_name_suggests(look_up, name, hint):
    """A name that is not there is a LookupError with the nearest one."""
    with pytest.raises(UnknownName) as error:
        look_up(name)
    assert f"Received: name={name!r}" in message(error)
    assert hint in str(error.value)
    assert isinstance(error.value, LookupError)


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
def test_bad_option_is_refused(name, options, hint):
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
def test_bad_weights_are_refused(files, file):
    """A path that is missing or a folder, or a file that holds no weights, is one line with the path."""
    with pytest.raises(BadOption) as error:
        zoo.get("mlp_tiny", weights=str(files / file))
    assert f"Received: weights={str(files / file)!r}" in message(error)


@pytest.mark.tensorflow
@pytest.mark.parametrize("file", ["whole.keras", "whole.weights.h5"])
@pytest.mark.parametrize("name", ["mlp", "mlp_mnist", "resnet20"])
def test_weights_of_another_model_are_refused(files, file, name):
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


@pytest.mark.parametrize("name", zoo.list_models())
def test_options_can_be_given(name):
    """No option of a family has the name of an argument of `zoo.get`."""
    options = set(build.options_of(registry_module.models[name]))
    assert options.isdisjoint(inspect.signature(zoo.get).parameters)


def test_errors_are_the_builtins_that_callers_expect():
    """Every error derives from the root, and each leaf from a builtin error too."""
    leaves = [leaf for leaf in ZooError.__subclasses__() if leaf.__module__ == ZooError.__module__]
    assert {"UnknownName", "BadOption", "RunError"} <= {leaf.__name__ for leaf in leaves}
    for leaf in leaves:
        assert leaf.__bases__[0] is ZooError
        assert leaf.__bases__[1].__module__ == "builtins"
        assert str(leaf("a sentence")) == "a sentence"


@pytest.mark.tensorflow
def test_register_by_call(added):
    """A registered builder is listed, described and built like those of the zoo."""
    assert added("toy", TOY, params=10)(toy) is toy
    assert "toy" in zoo.list_models("t*")
    assert zoo.spec("toy").family == __name__.rpartition(".")[2]
    model = zoo.get("toy", classes=3)
    assert (model.name, model.output_shape) == ("toy", (None, 3))
    added("toy2", TOY, params=10, family="toys")(toy)
    assert zoo.list_models(family="toys") == ["toy2"]
    assert __name__ in registry_module.models.origins()


# Each runs in a process of its own with a new registry.
TAKES_A_NAME_FIRST = """
import zoo
try:
    zoo.register_model("resnet50", zoo.ModelSpec((4,), 2), params=10)(lambda x, head: head(x))
except zoo.ZooError:
    pass
try:
    zoo.list_models()
except zoo.ZooError:
    pass
print(*zoo.list_models())
"""


def test_a_name_taken_first_does_not_hide_others(python):
    """A user who registers a name of the zoo first gets an error, and the rest of the zoo still works."""
    process = python("-c", TAKES_A_NAME_FIRST)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert set(out.split()) == set(zoo.list_models())


PLUGIN = """
import zoo

@zoo.register_model("plugged", zoo.ModelSpec((4,), 2, paper="none", tags=("toy",)), params=10)
def plugged(x, head, *, dropout: float = 0.0):
    return head(x, dropout)
"""
USE_PLUGIN = """
import sys, json
import zoo
names, spec = zoo.list_models(), zoo.spec("plugged")
assert "tensorflow" not in sys.modules
model = zoo.get("plugged", classes=3) if sys.argv[1] == "build" else None
print(json.dumps([names, model.count_params() if model else 0, spec.family]))
"""


def install(folder, name, code):
    """Lay a package with an entry point into a folder as an installer would."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[zoo.models]\n{name} = {name}\n")


@pytest.mark.parametrize(
    ("use", "wanted"), [("list", 0), pytest.param("build", 15, marks=[pytest.mark.slow, pytest.mark.tensorflow])]
)
def test_register_by_entry_point(use, wanted, tmp_path, python, root):
    """An installed package adds its models by an entry point, without an import."""
    install(tmp_path, "zoo_plugin", PLUGIN)
    process = python("-c", USE_PLUGIN, use, env={"PYTHONPATH": f"{root}:{tmp_path}"})
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    names, parameters, family = json.loads(out)
    assert set(names) == {*zoo.list_models(), "plugged"}
    assert (parameters, family) == (wanted, "zoo_plugin")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('no luck')", "no luck"),
        ("import a_package_that_is_missing", "a_package_that_is_missing"),
        ("def broken(:", "invalid syntax"),
        (PLUGIN.replace("plugged", "resnet50"), "registered already"),
    ],
)
def test_broken_plugin_only_warns(tmp_path, python, root, code, reason):
    """A plug-in that does not load is one warning; the zoo and other plug-ins are all there."""
    install(tmp_path, "a_broken_plugin", code)
    install(tmp_path, "zoo_plugin", PLUGIN)
    process = python("-m", "zoo", "list", "--json", env={"PYTHONPATH": f"{root}:{tmp_path}"})
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert {spec["name"] for spec in json.loads(out)} == {*zoo.list_models(), "plugged"}
    assert err.startswith("zoo: The model plug-in 'a_broken_plugin' did not load: ")
    assert reason in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("registry", "kind", "known"),
    [
        (recipes, "recipe", "digits_resnet"),
        (datasets, "dataset", "digits"),
        (formats, "format", "tflite"),
        (registry_module.models, "model", "resnet50"),
    ],
)
def test_one_registry_for_all_kinds(registry, kind, known):
    """Recipes, datasets and formats are found, listed and refused as models are."""
    assert isinstance(registry, registry_module.Registry)
    assert known in registry
    assert "nothing" not in registry
    assert registry.names(f"{known[:4]}*")
    with pytest.raises(UnknownName, match=f"Expected the name of a {kind}") as error:
        registry[f"{known}x"]
    assert f"Did you mean '{known}'?" in message(error)


NEW_PACKAGE = {
    "__init__.py": "from zoo.specs.registry import Registry\nthings = Registry('thing', 'things')\n",
    "_hidden.py": "raise RuntimeError('a module with an underscore is not imported')\n",
    "one.py": "from things import things\nthings.add('thing10', 10, __name__)\nthings.add('thing9', 9, __name__)\n",
}


def test_registry_of_a_new_kind(tmp_path, python, root):
    """A registry for another package needs that package alone: one new file is found, plumbing is left alone."""
    folder = tmp_path / "things"
    folder.mkdir()
    for name, content in NEW_PACKAGE.items():
        (folder / name).write_text(content)
    process = python(
        "-c",
        "from things import things; print(things.names(), things['thing9'], things.origins())",
        env={"PYTHONPATH": f"{root}:{tmp_path}"},
        stderr=subprocess.STDOUT,
    )
    assert process.communicate(timeout=60)[0] == "['thing9', 'thing10'] 9 {'things.one'}\n"
