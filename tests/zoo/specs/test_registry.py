"""The registry: finding names, refusing wrong ones, and adding to it."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess

import pytest

import zoo
from export.core.format import formats
from training.data.dataset import datasets
from training.recipe.recipe import recipes
from zoo import build
from zoo.common.errors import DuplicateName, UnknownName, ZooError
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


def test_duplicate_is_refused(added, message):
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
def test_unknown_name_suggests(look_up, name, hint, message):
    """A name that is not there is a LookupError with the nearest one."""
    with pytest.raises(UnknownName) as error:
        look_up(name)
    assert f"Received: name={name!r}" in message(error)
    assert hint in str(error.value)
    assert isinstance(error.value, LookupError)


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


@pytest.mark.parametrize(
    ("registry", "kind", "known"),
    [
        (recipes, "recipe", "digits_resnet"),
        (datasets, "dataset", "digits"),
        (formats, "format", "tflite"),
        (registry_module.models, "model", "resnet50"),
    ],
)
def test_one_registry_for_all_kinds(registry, kind, known, message):
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
