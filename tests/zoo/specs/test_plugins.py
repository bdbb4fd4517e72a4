"""Models of third parties: packages with entry points, broken ones, and names that are taken."""

from __future__ import annotations

import json

import pytest

import zoo

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
