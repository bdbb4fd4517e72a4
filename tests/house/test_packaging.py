"""House rules about packaging: declared dependencies, extras, pins, and what is installed."""

from __future__ import annotations

import ast
import configparser
import functools
import itertools
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from setuptools import find_packages
from source_tree import PACKAGES, ROOT, imported, modules, parse

from zoo.common.errors import MissingDependency
from zoo.common.lazy import LazyModule, require

# Packages that are not named after the module that they bring.
BROUGHT_BY = {"PIL": "pillow", "google": "protobuf", "sklearn": "scikit-learn"}
EXTRAS = ("tune", "text", "heic", "openvino", "jax", "serve", "gpu", "docs", "dev")
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
PLATFORMS = ["linux", "darwin"]


@functools.cache
def config():
    """The content of setup.cfg."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def normal(name):
    """A package's name as the index writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def declared(*extras, base=True):
    """The requirements of setup.cfg by package: the base's and those of extras."""
    texts = [config()["options"]["install_requires"]] if base else []
    texts += [config()["options.extras_require"][extra] for extra in extras]
    found = map(Requirement, filter(None, "\n".join(texts).splitlines()))
    return {normal(requirement.name): requirement for requirement in found}


def third_party(module):
    """Packages of other projects that a module imports."""
    for name in imported(ast.walk(module.tree)):
        top = name.partition(".")[0]
        if top and top not in sys.stdlib_module_names and top not in PACKAGES:
            yield normal(BROUGHT_BY.get(top, top))


def undeclared(module):
    """Packages that setup.cfg does not declare."""
    return set(third_party(module)) - set(declared("tune", "text", "heic", "openvino", "jax"))


def test_imported_packages_are_declared():
    """Every imported package is in the base or in an extra."""
    assert {module.path: undeclared(module) for module in modules(*PACKAGES) if undeclared(module)} == {}


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ("import pandas", "import click, json, zoo"),
        ("def f():\n    import torch.nn", "def f():\n    from PIL import Image"),
        ("x = LazyModule('flax.linen')", "x = LazyModule('tf2onnx')"),
    ],
)
def test_undeclared_package_is_found(bad, good):
    """The control of the test above."""
    assert undeclared(parse("zoo/a.py", bad))
    assert not undeclared(parse("zoo/a.py", good))


# Rooms that may import what an extra installs; everything else works with the base install.
ROOMS_OF_EXTRAS = {
    "text": ("zoo/embedding.py", "training/data/wordpiece.py"),
    "heic": ("training/common/image_files.py",),
    "tune": ("training/tuning/", "training/common/compat.py"),
    "openvino": ("export/backends/openvino/", "export/formats/openvino", "export/core/compat.py"),
    "jax": ("training/distributed/", "training/monitor/", "training/common/"),
}


@pytest.mark.parametrize("extra", ROOMS_OF_EXTRAS)
def test_extras_stay_in_their_rooms(extra):
    """No other room imports a package of an extra, and the base does not install one."""
    packages = set(declared(extra, base=False))
    assert packages
    assert not packages & set(declared())
    users = {module.path for module in modules(*PACKAGES) if packages & set(third_party(module))}
    assert users
    assert [path for path in users if not path.startswith(ROOMS_OF_EXTRAS[extra])] == []


def test_extras_are_complete():
    """The extras are these; the one for tests has all that the tests run."""
    assert set(config()["options.extras_require"]) == set(EXTRAS)
    tested = declared("tune", "text", "heic", "openvino", "jax", base=False)
    assert {name: str(r) for name, r in tested.items()}.items() <= {
        name: str(r) for name, r in declared("dev", base=False).items()
    }.items()


def test_missing_package_names_the_extra(monkeypatch):
    """The message has the command that installs the package; the base's packages are named themselves."""
    import training

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingDependency, match=r'package=\'optuna\'\. Run: pip install "keras-zoo\[tune\]"'):
        require("optuna", extra="tune")
    with pytest.raises(MissingDependency, match=r'pip install "keras-zoo\[tune\]"'):
        training.tune("digits_mlp", ["epochs=1..2"])
    with pytest.raises(MissingDependency, match=r'pip install "keras-zoo\[openvino\]"'):
        LazyModule("no_such_module", extra="openvino").attribute  # noqa: B018
    with pytest.raises(MissingDependency, match=r"package='no-such'\. Run: pip install no-such$"):
        LazyModule("no_such_module", "no-such").attribute  # noqa: B018
    require("click", extra="tune")


def pins(text, python, platform):
    """Pairs (package, version) that a constraints file pins for one Python on one platform."""
    place = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": platform}
    found = map(Requirement, filter(None, (line.partition("#")[0].strip() for line in text.splitlines())))
    here = [r for r in found if r.marker is None or r.marker.evaluate(place)]
    assert all(len(r.specifier) == 1 and str(r.specifier).startswith("==") for r in here)
    return [(normal(r.name), str(r.specifier)[2:]) for r in here]


@pytest.mark.parametrize(("version", "platform"), list(itertools.product(PYTHONS, PLATFORMS)))
def test_everything_is_pinned_once(version, platform):
    """For each Python and platform, each package has one version, which fits setup.cfg; those of extras too."""
    found = pins((ROOT / "constraints.txt").read_text(), version, platform)
    names = [name for name, _ in found]
    assert sorted(names) == sorted(set(names))
    for name, requirement in declared(*EXTRAS).items():
        assert name in names, f"{name} is not pinned"
        assert requirement.specifier.contains(dict(found)[name], prereleases=True), name


def test_pins_are_read():
    """The control: a package pinned twice is seen, one for another Python is not, and a range is no pin."""
    text = "a==1 ; python_version < '3.11'\na==2 ; python_version >= '3.11'\nA_b==1\na-b==2"
    assert pins(text, "3.12", "linux") == [("a", "2"), ("a-b", "1"), ("a-b", "2")]
    with pytest.raises(AssertionError):
        pins("a>=1", "3.12", "linux")


def test_pins_name_no_host():
    """The pins are versions, from any index."""
    text = (ROOT / "constraints.txt").read_text() + (ROOT / "pins.txt").read_text()
    assert "://" not in text
    assert "--" not in text


def test_supported_pythons():
    """Every Python that setup.cfg names is inside python_requires, and those pinned are all of them."""
    named = re.findall(r"Python :: (3\.\d+)", config()["metadata"]["classifiers"])
    allowed = Requirement(f"zoo{config()['options']['python_requires']}").specifier
    assert named == PYTHONS == [f"3.{minor}" for minor in range(30) if f"3.{minor}" in allowed]


def test_every_package_is_installed():
    """The packages found for setup.cfg are the folders that there are, and files that are no Python are its data."""
    patterns = config()["options.packages.find"]["include"].split()
    found = {Path(module.path).parent.as_posix().replace("/", ".") for module in modules(*PACKAGES)}
    assert set(find_packages(ROOT, include=patterns)) == found
    data = {
        f"{package.replace('.', '/')}/{file}"
        for package, files in config()["options.package_data"].items()
        for file in files.split()
    }
    others = {p.relative_to(ROOT).as_posix() for folder in PACKAGES for p in (ROOT / folder).rglob("*") if p.is_file()}
    assert {path for path in others if not path.endswith((".py", ".pyc"))} == data
    assert {f"{package}/py.typed" for package in PACKAGES} <= data


def test_tests_are_no_package():
    """tf2onnx brings a package named tests; ours must not be one."""
    assert list((ROOT / "tests").rglob("__init__.py")) == []
    assert list((ROOT / "tests").rglob("test_*.py"))
