"""The public API of the package: names, arguments and errors."""

from __future__ import annotations

import inspect
import re
import sys
from importlib import metadata

import pytest

import zoo
from zoo.common import errors
from zoo.specs import registry


def test_all_is_sorted_and_there():
    """Every public name exists and has a docstring, unless it is a text."""
    assert sorted(zoo.__all__) == zoo.__all__
    for name in zoo.__all__:
        assert isinstance(getattr(zoo, name), str) or inspect.getdoc(getattr(zoo, name))


def test_every_error_is_public():
    """The whole error tree can be caught through the package."""
    classes = {n: value for n, value in vars(errors).items() if inspect.isclass(value)}
    leaves = {name for name, value in classes.items() if value.__module__ == errors.__name__}
    assert leaves <= set(zoo.__all__)
    assert all(issubclass(getattr(zoo, name), zoo.ZooError) for name in leaves)


def test_version():
    """The version is the installed one; other names stay errors."""
    assert zoo.__version__ == metadata.version("keras-zoo")
    with pytest.raises(AttributeError, match="nothing"):
        zoo.nothing  # noqa: B018


def test_version_is_light(printed):
    """`import zoo` loads neither a framework nor the package metadata."""
    heavy = ["keras", "tensorflow", "numpy", "importlib.metadata"]
    code = f"import json, sys, zoo; print(json.dumps([n for n in {heavy} if n in sys.modules]))"
    assert printed("-c", code) == []


@pytest.mark.parametrize(("name", "options"), [("mlp_tiny", {}), ("mlp_tiny", {"heads": {"a": 2}})])
def test_name_of_the_model(name, options):
    """`name=` is the keras.Model's name; layers and outputs do not change."""
    model, plain = zoo.get(name, name="mine", **options), zoo.get(name, **options)
    assert (model.name, plain.name) == ("mine", name)
    assert [layer.name for layer in model.layers] == [layer.name for layer in plain.layers]
    assert model.output_names == plain.output_names


def test_name_of_a_feature_model():
    """`zoo.features` takes a name too."""
    assert zoo.features("resnet_tiny", name="mine").name == "mine"
    assert zoo.features("resnet_tiny").name == "resnet_tiny_features"


def test_name_with_weights(tmp_path):
    """A renamed model takes the weights of another name, and saves and loads under its own."""
    import keras

    plain = zoo.get("mlp_tiny")
    plain.save(tmp_path / "plain.keras")
    model = zoo.get("mlp_tiny", name="mine", weights=tmp_path / "plain.keras")
    assert all((a == b).all() for a, b in zip(model.get_weights(), plain.get_weights(), strict=True))
    model.save(tmp_path / "mine.keras")
    assert keras.saving.load_model(tmp_path / "mine.keras").name == "mine"


@pytest.mark.parametrize("name", ["", "a/b", 3])
def test_bad_name(name):
    """A name that Keras does not take is one line."""
    with pytest.raises(zoo.BadOption, match=re.escape(f"Received: name={name!r}")):
        zoo.get("mlp_tiny", name=name)


def test_reserved_names_are_the_arguments():
    """No option of a family can shadow an argument of `zoo.get` or `zoo.features`."""
    keywords = {
        parameter.name
        for function in (zoo.get, zoo.features)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }
    assert keywords == registry.RESERVED


@pytest.mark.parametrize("option", sorted(registry.RESERVED))
def test_conflicting_option_is_refused(option):
    """A builder with an option of such a name is not registered."""
    namespace = {}
    exec(f"def builder(x, head, *, {option}=None): return head(x)", namespace)
    with pytest.raises(zoo.BadOption, match=rf"Received: \['{option}'\]"):
        zoo.register_model("conflict", zoo.ModelSpec((4,), 2), params=10)(namespace["builder"])
    assert "conflict" not in zoo.list_models()


def test_an_option_may_be_called_model():
    """The model is positional-only, so that `model=` is free for a family."""
    with pytest.raises(zoo.BadOption, match=r"mlp_tiny has no such option\. Received: model="):
        zoo.get("mlp_tiny", model="resnet50")


def test_list_models_refuses_unknown_filters():
    """An unknown family or tag is an error with the nearest one, not an empty list."""
    with pytest.raises(zoo.UnknownName, match=r"Received: family='resnett'. Did you mean 'resnet'\?"):
        zoo.list_models(family="resnett")
    with pytest.raises(zoo.UnknownName, match=r"Received: tag='smal'. Did you mean 'small'\?"):
        zoo.list_models(tag="smal")


def test_pretrained():
    """Models with published weights that can be loaded; a pickle of torchvision does not count."""
    found = zoo.list_models(pretrained=True)
    assert {"resnet50", "vit_small_patch16_224"} & set(found)
    assert all(zoo.spec(name).weights for name in found)
    assert zoo.spec("googlenet").weights
    assert "googlenet" not in found


@pytest.mark.parametrize("package", ["zoo", "training", "export"])
def test_packages_are_typed(package):
    """Type checkers read the annotations of every package."""
    __import__(package)
    (folder,) = sys.modules[package].__path__
    from pathlib import Path

    assert (Path(folder) / "py.typed").is_file()
