"""House rules about imports: their direction, cycles, content, heavy modules and private upstream names.

Each rule reads the source, and each has snippets that it refuses and passes.
"""

from __future__ import annotations

import ast
import functools
from collections import Counter
from pathlib import Path

import pytest
from source_tree import (
    COMMAND,
    CONTENT,
    FUNCTIONS,
    PACKAGES,
    ROOT,
    called,
    cycles,
    imported,
    is_content,
    module_graph,
    modules,
    parse,
    room_graph,
    top_level,
    under,
)

HEAVY = {
    "PIL", "ai_edge_litert", "huggingface_hub", "jax", "jinja2", "keras", "litert_quantizer", "matplotlib", "nncf",
    "numpy", "onnx", "onnxruntime", "openvino", "optuna", "pyarrow", "rich", "safetensors", "scipy", "sklearn",
    "tensorflow", "tensorflow_datasets", "tensorflow_model_optimization", "tf2onnx", "tf_keras", "tomli",
}  # fmt: skip
# Classes derived from Keras': they import Keras, and are themselves imported on first use.
LAYER_MODULES = {
    f"zoo.layers.{name}"
    for name in ("convolution", "core", "dense", "initializers", "normalization", "saving", "sequence", "tabular")
}
LAYERS = {f"{name.replace('.', '/')}.py" for name in LAYER_MODULES}
HEAVY |= LAYER_MODULES
# Roots of private modules that have no underscore in their names.
PRIVATE_ROOTS = ("tensorflow.python", "keras.src", "tf_keras.src", "google.protobuf.internal", "jax.core")
# Documented in spite of the underscore.
DOCUMENTED = {"_replace", "_asdict", "_fields", "_make", "_exit"}
ENTRIES = 18  # modules and rooms in a room; files and folders in a folder of tests


@functools.cache
def content_modules():
    """Dotted names of the modules that are content."""
    return {module.name for module in modules(*PACKAGES) if is_content(module.path)}


def imports_run_one_way(module):
    """zoo <- training <- export."""
    own = PACKAGES.index(module.path.partition("/")[0])
    for name in imported(ast.walk(module.tree)):
        if under(name, PACKAGES[own + 1 :]) and module.path != COMMAND:
            yield f"imports {name}"


def content_is_found_not_imported(module):
    """No module imports a family, dataset, recipe, format or compression by name; siblings do not either."""
    for name in imported(ast.walk(module.tree)):
        if under(name, content_modules()) or name.startswith("."):
            yield f"imports {name}"


def nothing_heavy_at_import(module):
    """TensorFlow and its like are imported inside functions."""
    allowed = {"keras", "numpy", *LAYER_MODULES} if module.path in LAYERS else set()
    nodes = (n for n in top_level(module.tree) if not (isinstance(n, ast.Call) and called(n) in ("LazyModule",)))
    for name in imported(nodes):
        if under(name, HEAVY - allowed):
            yield f"imports {name} at module level"


def modules_have_no_underscore(module):
    """Every module is public in its package; a helper of one file is a name with an underscore."""
    parts = Path(module.path).with_suffix("").parts
    yield from (f"{part} starts with an underscore" for part in parts if part[0] == "_" and part[:2] != "__")


def names_of_other_modules_are_public(module):
    """A name with an underscore stays in its file."""
    for name in imported(ast.walk(module.tree)):
        last = name.rpartition(".")[2]
        if under(name, PACKAGES) and last[:1] == "_" and last[:2] != "__":
            yield f"imports {name}"


def private_upstream_is_in_compat(module):
    """Private modules and attributes of other projects are used in `compat` modules alone."""
    if Path(module.path).stem == "compat":
        return
    for name in imported(ast.walk(module.tree)):
        if not under(name, PACKAGES) and (under(name, PRIVATE_ROOTS) or _has_private_part(name)):
            yield f"imports {name}"
    for node in ast.walk(module.tree):
        for name in _private_names(node) - _own_names() - DOCUMENTED:
            yield f"line {node.lineno} uses {name}"


def _has_private_part(name):
    return any(part[:1] == "_" and part[:2] != "__" for part in name.split("."))


def _private_names(node):
    """Private attributes that a node reads or sets, also by `getattr`, `hasattr` and `setattr`."""
    if isinstance(node, ast.Attribute):
        names = {node.attr}
    elif isinstance(node, ast.Call) and called(node) in ("getattr", "hasattr", "setattr"):
        names = {a.value for a in node.args[1:2] if isinstance(a, ast.Constant)}
    else:
        names = set()
    return {name for name in names if name[:1] == "_" and name[:2] != "__"}


@functools.cache
def _own_names():
    """Private names that the packages define themselves: functions, classes, variables, fields and own attributes."""
    found = set()
    for module in modules(*PACKAGES):
        for node in ast.walk(module.tree):
            if isinstance(node, (ast.ClassDef, *FUNCTIONS)):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found |= {node.attr} if ast.unparse(node.value) in ("self", "cls") else set()
    return found


# (rule, path, source that it refuses, source that it passes)
CONTROLS = [
    (imports_run_one_way, "zoo/a.py", "def f():\n    from training import train", "import zoo.common.errors"),
    (imports_run_one_way, "zoo/a.py", "import_module('export.formats.onnx')", "import exporter"),
    (imports_run_one_way, "zoo/commands.py", "import export as room", "from zoo import list_models"),
    (imports_run_one_way, "training/a.py", "from export.core.format import formats", "import zoo"),
    (
        content_is_found_not_imported,
        "zoo/models/alexnet.py",
        "from zoo.models.resnet import basic",
        "from zoo.layers.blocks import conv",
    ),
    (
        content_is_found_not_imported,
        "zoo/models/a.py",
        "from zoo.models import resnet",
        "from zoo.layers import blocks",
    ),
    (content_is_found_not_imported, "export/a.py", "from export.formats.tflite import write", "import export.core"),
    (content_is_found_not_imported, "training/recipes/a.py", "from training.datasets import digits", "import training"),
    (content_is_found_not_imported, "export/compressions/prune.py", "from . import qat", "import qat"),
    (nothing_heavy_at_import, "zoo/a.py", "import numpy as np", "def f():\n    import numpy as np"),
    (nothing_heavy_at_import, "zoo/a.py", "try:\n    import keras.ops\nexcept OSError:\n    pass", "import kerasy"),
    (nothing_heavy_at_import, "zoo/a.py", "class A:\n    from PIL import Image", "class A:\n    import json"),
    (nothing_heavy_at_import, "zoo/a.py", "np = import_module('numpy')", "np = LazyModule('numpy')"),
    (nothing_heavy_at_import, "zoo/a.py", "import zoo.layers.core", "from zoo.common.lazy import keras, layers"),
    (nothing_heavy_at_import, "zoo/layers/core.py", "import tensorflow", "import keras"),
    (nothing_heavy_at_import, "zoo/a.py", "if True:\n    import rich.table", "if TYPE_CHECKING:\n    import keras"),
    (modules_have_no_underscore, "zoo/_a.py", "", ""),
    (modules_have_no_underscore, "training/_rooms/a.py", "", ""),
    (names_of_other_modules_are_public, "zoo/a.py", "from zoo.build import _check", "from zoo.build import build"),
    (names_of_other_modules_are_public, "zoo/a.py", "import zoo._facts", "from numpy import _core"),
    (private_upstream_is_in_compat, "zoo/a.py", "from keras.src.layers import Layer", "from keras.layers import Layer"),
    (private_upstream_is_in_compat, "zoo/a.py", "from tensorflow.python.eager import context", "import tensorflow"),
    (private_upstream_is_in_compat, "zoo/a.py", "from scipy.optimize import _lbfgsb", "from scipy import optimize"),
    (private_upstream_is_in_compat, "zoo/a.py", "x = LazyModule('keras.src')", "x = LazyModule('keras')"),
    (private_upstream_is_in_compat, "zoo/a.py", "tensor._keras_history", "row._replace(a=1)"),
    (private_upstream_is_in_compat, "zoo/a.py", "optimizer._iterations = 1", "optimizer.iterations = 1"),
    (private_upstream_is_in_compat, "zoo/a.py", "hasattr(x, '_inbound_nodes')", "hasattr(x, 'input')"),
    (private_upstream_is_in_compat, "zoo/a.py", "self._keras_mask", "model.__dict__"),
]
RULES = dict.fromkeys(rule for rule, *_ in CONTROLS)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_holds(rule):
    """The rule finds nothing in the three packages."""
    assert [f"{module.path}: {fault}" for module in modules(*PACKAGES) for fault in rule(module)] == []


@pytest.mark.parametrize(
    ("rule", "path", "bad", "good"), CONTROLS, ids=[f"{rule.__name__}-{bad[:40]}" for rule, _, bad, _ in CONTROLS]
)
def test_rule_can_fail(rule, path, bad, good):
    """The rule refuses what is wrong, and passes what is right; the path alone can be what is wrong."""
    assert list(rule(parse(path, bad)))
    assert list(rule(parse(path if bad != good else "zoo/layers/__init__.py", good))) == []


def test_command_alone_imports_all_packages():
    """The exception to the direction of imports is the file of the command and no other."""
    source = "import export, training"
    assert list(imports_run_one_way(parse(COMMAND, source))) == []
    assert list(imports_run_one_way(parse("zoo/__init__.py", source)))


def test_compat_alone_uses_private_names():
    """The exception to private upstream names is a module called compat."""
    source = "from keras.src import ops\ntensor._keras_history"
    assert list(private_upstream_is_in_compat(parse("training/common/compat.py", source))) == []
    assert len(list(private_upstream_is_in_compat(parse("training/common/compatible.py", source)))) == 2


def test_modules_are_read():
    """The control of all rules: they read the files that are there, and find content by its folder."""
    paths = {module.path for module in modules(*PACKAGES)}
    assert {"zoo/__init__.py", "zoo/layers/core.py", "training/datasets/digits.py", "export/formats/onnx.py"} <= paths
    assert {"zoo.models.resnet", "training.recipes.digits_resnet", "export.formats.tflite"} <= content_modules()
    assert not {"zoo.build", "zoo.layers.blocks", "training.data.splits", "export.formats"} & content_modules()


def test_no_cycle_between_modules():
    """Imports inside functions, under TYPE_CHECKING and by name count too."""
    graph = module_graph(modules(*PACKAGES))
    assert len(graph) > 100
    assert cycles(graph) == []


def test_no_cycle_between_rooms():
    """No two folders import each other, not through a third one either."""
    graph = room_graph(modules(*PACKAGES))
    assert "training.learning" in graph["export.source"]
    assert cycles(graph) == []


@pytest.mark.parametrize(
    ("back", "expected"),
    [
        ("from zoo.rooms import a", [["zoo.rooms.a", "zoo.rooms.b"]]),
        ("def f():\n    import zoo.rooms.a", [["zoo.rooms.a", "zoo.rooms.b"]]),
        ("if TYPE_CHECKING:\n    from zoo.rooms.a import A", [["zoo.rooms.a", "zoo.rooms.b"]]),
        ("WORKER = 'zoo.rooms.a'", [["zoo.rooms.a", "zoo.rooms.b"]]),
        ("import zoo.rooms.c", []),
        ("WORKER = 'a text about zoo.rooms.a'", []),
    ],
)
def test_cycle_is_found(back, expected):
    """The control: each kind of import back makes a cycle."""
    found = [parse("zoo/rooms/a.py", "from zoo.rooms.b import f"), parse("zoo/rooms/b.py", back)]
    assert cycles(module_graph([*found, parse("zoo/rooms/c.py", "")])) == expected


def test_cycle_between_rooms_is_found():
    """The control: rooms make a cycle although their modules make none; commands do not count."""
    one = [parse("zoo/x/a.py", "import zoo.y.a"), parse("zoo/x/b.py", ""), parse("zoo/y/a.py", "")]
    back = parse("zoo/y/b.py", "from zoo.x import b")
    assert cycles(module_graph([*one, back])) == []
    assert cycles(room_graph([*one, back])) == [["zoo.x", "zoo.y"]]
    assert cycles(room_graph(one)) == []
    assert cycles(room_graph([*one, parse("zoo/y/commands.py", "from zoo.x import b")])) == []


def entries(paths):
    """Modules and rooms in each folder; content folders have as many as there is content."""
    files = [Path(path) for path in paths if Path(path).name != "__init__.py"]
    rooms = {folder for file in files for folder in file.parents if folder.name}
    children = {*files, *rooms}
    counts = Counter(child.parent.as_posix() for child in children if child.as_posix() not in CONTENT)
    return {folder: count for folder, count in counts.items() if folder not in CONTENT}


def files_below(folder):
    """All files below a folder of the repository, data included, but for what Python compiled."""
    found = (path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file())
    return [path.as_posix() for path in found if "__pycache__" not in path.parts]


def test_rooms_are_small():
    """No room and no folder of tests has more entries than a reader takes in at once."""
    found = entries([*(module.path for module in modules(*PACKAGES)), *files_below("tests")])
    assert {folder: count for folder, count in found.items() if count > ENTRIES} == {}
    assert found["zoo/layers"] > 3
    assert found["tests"] > 3


def test_large_room_is_found():
    """The control: one module more than the limit is seen, as many in a content folder are not."""
    many = [f"{{}}/a{number}.py" for number in range(ENTRIES + 1)]
    assert entries(path.format("zoo/layers") for path in many)["zoo/layers"] == ENTRIES + 1
    assert entries(path.format("zoo/models") for path in many) == {".": 1}
    assert entries([*(path.format("tests/zoo") for path in many), "tests/zoo/a.json"])["tests/zoo"] == ENTRIES + 2


def test_data_of_tests_counts():
    """The control: recorded data beside the tests is an entry, what Python compiled is none."""
    found = files_below("tests")
    assert "tests/zoo/weights/timm_configs.json" in found
    assert not [path for path in found if path.endswith(".pyc")]


def test_nothing_heavy_is_imported(python):
    """Every module can be imported without one of the heavy packages, except the layers themselves."""
    light = [module.name for module in modules(*PACKAGES) if module.name not in HEAVY]
    check = f"import importlib, sys\nfor n in {light}: importlib.import_module(n)\nprint(*{HEAVY} & set(sys.modules))"
    control = python("-c", "import numpy\n" + check)
    process = python("-c", check)
    out, err = process.communicate(timeout=120)
    assert (out.strip(), process.returncode) == ("", 0), err
    assert control.communicate(timeout=120)[0].strip() == "numpy"
