"""The house rules as tests: each rule reads the source, and each has snippets that it must refuse and let pass."""

from __future__ import annotations

import ast
import configparser
import functools
import io
import itertools
import re
import sys
import tokenize
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

import zoo
from export.core.compression import compressions
from export.core.format import formats
from training.data.dataset import datasets
from training.recipe.recipe import recipes

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("zoo", "training", "export")  # each may import those before it
COMMAND = "zoo/__main__.py"  # puts the rooms together, so that it alone imports all of them
HEAVY = {
    "PIL", "ai_edge_litert", "huggingface_hub", "jax", "jinja2", "keras", "litert_quantizer", "matplotlib", "nncf",
    "numpy", "onnx", "onnxruntime", "openvino", "optuna", "pyarrow", "rich", "safetensors", "scipy", "sklearn",
    "tensorflow", "tensorflow_datasets", "tensorflow_model_optimization", "tf2onnx", "tf_keras", "tomli",
    "zoo.layers.core", "zoo.layers.sequence",
}  # fmt: skip
# Classes derived from Keras', which are imported on first use themselves.
LAYERS = ("zoo/layers/core.py", "zoo/layers/sequence.py")
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
# Where a package is not called what is imported.
PACKAGES = {"PIL": "pillow", "google": "protobuf", "sklearn": "scikit-learn"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def parse(path, source):
    """A module: its path in the repository, its text and its tree."""
    return SimpleNamespace(path=path, source=source, tree=ast.parse(source))


@functools.cache
def modules(*folders):
    """The Python files in these folders of the repository."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return [parse(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


def is_content(path):
    """Tell whether a path is a family, dataset, recipe or format: a file without an underscore."""
    return not Path(path).name.startswith("_")


@functools.cache
def content_modules():
    """Dotted names of the modules that are content."""
    return {m.path[:-3].replace("/", ".") for m in modules(*ROOMS) if is_content(m.path)}


# Formats whose names are those of libraries too, which shared code works with.
LIBRARIES = {"keras", "openvino"}


@functools.cache
def content_names():
    """Every registered name of every kind, and the families."""
    named = (formats, compressions, datasets, recipes)
    found = {*zoo.names(), *zoo.families(), *(name for registry in named for name in registry.names())}
    return found - LIBRARIES


def top_level(node):
    """Nodes that run when the module is imported; what stands under TYPE_CHECKING does not."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (*FUNCTIONS, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from top_level(child)


def imported(nodes):
    """Dotted names that import statements and calls of `import_module` and `LazyModule` ask for."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "LazyModule", "__import__"):
            yield from (a.value for a in node.args[:1] if isinstance(a, ast.Constant))


def called(node):
    """The last part of what a call calls."""
    return ast.unparse(node.func).rpartition(".")[2]


def under(name, packages):
    """Tell whether a dotted name is one of the packages or lies in one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def functions(tree):
    """All functions of a tree."""
    return [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]


def docstring_lines(node):
    """Numbers of the lines that a docstring takes."""
    first = node.body[0] if node.body else None
    is_text = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    return set(range(first.lineno, first.end_lineno + 1)) if is_text else set()


def length(function):
    """Lines of a function without its docstring."""
    return function.end_lineno - function.lineno + 1 - len(docstring_lines(function))


def parameters(function):
    """All parameters but *args and **kwargs."""
    return [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]


def code_lines(module):
    """Lines that are neither blank, comment nor docstring."""
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = tokenize.generate_tokens(io.StringIO(module.source).readline)
    lines = {n for t in tokens if t.type not in blank for n in range(t.start[0], t.end[0] + 1)}
    holders = (n for n in ast.walk(module.tree) if isinstance(n, (ast.Module, ast.ClassDef, *FUNCTIONS)))
    return lines.difference(*map(docstring_lines, holders))


def public(tree):
    """Public functions, classes and methods, the special methods that users call among them."""
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, *FUNCTIONS)) and (
            not node.name.startswith("_") or node.name in ("__init__", "__call__")
        ):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node)


def imports_run_one_way(module):
    """zoo <- training <- export."""
    own = ROOMS.index(module.path.partition("/")[0])
    for name in imported(ast.walk(module.tree)):
        if under(name, ROOMS[own + 1 :]) and module.path != COMMAND:
            yield f"imports {name}"


def content_is_found_not_imported(module):
    """Nobody imports a family, dataset, recipe or format by name, siblings neither."""
    for name in imported(ast.walk(module.tree)):
        if under(name, content_modules()) or name.startswith("."):
            yield f"imports {name}"


def nothing_heavy_at_import(module):
    """TensorFlow and its like are imported inside functions."""
    allowed = {"keras", "numpy", "zoo.layers.core"} if module.path in LAYERS else set()
    nodes = (n for n in top_level(module.tree) if not (isinstance(n, ast.Call) and called(n) == "LazyModule"))
    for name in imported(nodes):
        if under(name, HEAVY - allowed):
            yield f"imports {name} at module level"


def annotations_are_lazy(module):
    """`from __future__ import annotations` in every file that has code."""
    code = module.tree.body[1:] if docstring_lines(module.tree) else module.tree.body
    if code and ast.unparse(code[0]) != "from __future__ import annotations":
        yield "does not begin with: from __future__ import annotations"


def functions_are_short(module):
    """No function has more than 60 lines without its docstring."""
    yield from (f"{f.name} has {length(f)} lines" for f in functions(module.tree) if length(f) > 60)


def parameters_are_few(module):
    """No function has more than 8 parameters."""
    for function in functions(module.tree):
        if len(parameters(function)) > 8:
            yield f"{function.name} has {len(parameters(function))} parameters"


def files_are_short(module):
    """No file has more than 250 lines of code."""
    if len(code_lines(module)) > 250:
        yield f"has {len(code_lines(module))} lines of code"


def shared_code_knows_no_content(module):
    """Shared code does not branch on the name of a model, family, dataset, recipe or format."""
    for node in ast.walk(module.tree):
        for value in () if is_content(module.path) else branched_on(node):
            yield f"line {node.lineno} branches on {value!r}"


def branched_on(node):
    """Strings a branch depends on that are names of content, or that a family or format is compared with."""
    texts = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    if isinstance(node, ast.Compare):
        sides = {ast.unparse(side).rpartition(".")[2] for side in (node.left, *node.comparators)}
        return texts if sides & {"family", "fmt", "format"} else texts & content_names()
    if isinstance(node, ast.MatchValue) or (isinstance(node, ast.Call) and called(node) in ("startswith", "endswith")):
        return texts & content_names()
    if isinstance(node, ast.Dict):
        return {k.value for k in node.keys if isinstance(k, ast.Constant)} & content_names()
    return set()


def public_signatures_are_typed(module):
    """Every parameter and return of what is public has a type."""
    for function in (node for node in public(module.tree) if isinstance(node, FUNCTIONS)):
        arguments = [*parameters(function), function.args.vararg, function.args.kwarg]
        untyped = [a.arg for a in arguments if a and a.annotation is None and a.arg not in ("self", "cls")]
        if untyped or function.returns is None:
            yield f"{function.name} lacks types: {', '.join(untyped) or 'return'}"


def public_things_are_documented(module):
    """Modules, public classes, functions and methods have docstrings."""
    for node in (module.tree, *public(module.tree)):
        name = getattr(node, "name", "the module")
        if not name.startswith("__") and not ast.get_docstring(node):
            yield f"{name} has no docstring"


def nothing_runs_data(module):
    """No file that is read can run code: no pickle, no eval, no unsafe loading."""
    yield from (f"imports {n}" for n in imported(ast.walk(module.tree)) if under(n, UNSAFE_MODULES))
    for call in (node for node in ast.walk(module.tree) if isinstance(node, ast.Call)):
        if ast.unparse(call.func) in ("eval", "exec") or called(call) == "enable_unsafe_deserialization":
            yield f"line {call.lineno} calls {ast.unparse(call.func)}"
        for keyword, safe in (("allow_pickle", False), ("safe_mode", True)):
            for given in (k.value for k in call.keywords if k.arg == keyword):
                if not (isinstance(given, ast.Constant) and given.value is safe):
                    yield f"line {call.lineno} gives {keyword}={ast.unparse(given)}"


def errors_are_not_swallowed(module):
    """No bare except, and none that takes every error and drops it."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or {"Exception", "BaseException"} & set(
                re.findall(r"\w+", ast.unparse(node.type))
            )
            dropped = all(isinstance(n, (ast.Pass, ast.Continue)) for n in node.body)
            if node.type is None or (broad and dropped):
                yield f"line {node.lineno} drops every error"
        if isinstance(node, ast.Call) and called(node) == "suppress" and "Exception" in map(ast.unparse, node.args):
            yield f"line {node.lineno} drops every error"


def nothing_is_asserted(module):
    """Asserts vanish under `python -O`; what a user can get wrong is an error of the tree."""
    yield from (f"line {node.lineno} asserts" for node in ast.walk(module.tree) if isinstance(node, ast.Assert))


# What only some users need, beside what all do.
EXTRAS = ("jax", "openvino")


def packages_are_declared(module):
    """What is imported stands in setup.cfg."""
    for name in imported(ast.walk(module.tree)):
        top = name.partition(".")[0]
        if top and top not in sys.stdlib_module_names and top not in ROOMS and package(top) not in declared(*EXTRAS):
            yield f"imports {name}, which setup.cfg does not declare"


def package(module):
    """The package that brings a module."""
    return normal(PACKAGES.get(module, module))


def normal(name):
    """A package's name as the index writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def declared(*extras):
    """The requirements of setup.cfg by package."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    texts = [config["options"]["install_requires"], *(config["options.extras_require"][extra] for extra in extras)]
    found = map(Requirement, filter(None, "\n".join(texts).splitlines()))
    return {normal(requirement.name): requirement for requirement in found}


def pins(text, python, platform):
    """Pairs (package, version) that a constraints file pins for one Python on one platform."""
    place = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": platform}
    found = map(Requirement, filter(None, (line.partition("#")[0].strip() for line in text.splitlines())))
    here = [r for r in found if r.marker is None or r.marker.evaluate(place)]
    assert all(len(r.specifier) == 1 and str(r.specifier).startswith("==") for r in here)
    return [(normal(r.name), str(r.specifier)[2:]) for r in here]


def long_function(lines):
    """A function of so many lines and a docstring."""
    return 'def f():\n    """One.\n\n    Two.\n    """\n' + "    x = 1\n" * (lines - 1)


# (rule, path, source that it refuses, source that it lets pass)
CONTROLS = [
    (imports_run_one_way, "zoo/_a.py", "def f():\n    from training import train", "import zoo.common.errors"),
    (
        imports_run_one_way,
        "zoo/_a.py",
        "import importlib\nimportlib.import_module('export.formats.onnx')",
        "import exporter",
    ),
    (imports_run_one_way, "zoo/commands.py", "import export as room", "from zoo import names"),
    (imports_run_one_way, "training/_a.py", "from export.core.format import formats", "import zoo"),
    (
        content_is_found_not_imported,
        "zoo/models/alexnet.py",
        "from zoo.models.resnet import basic",
        "from zoo.layers.blocks import conv",
    ),
    (content_is_found_not_imported, "zoo/models/alexnet.py", "from zoo import resnet", "from zoo import _blocks"),
    (
        content_is_found_not_imported,
        "export/_a.py",
        "from export.formats.tflite import write",
        "from export import _format",
    ),
    (content_is_found_not_imported, "training/recipes/a.py", "from training.datasets import digits", "import training"),
    (content_is_found_not_imported, "export/compressions/prune.py", "from . import onnx", "import onnx"),
    (nothing_heavy_at_import, "zoo/_a.py", "import numpy as np", "def f():\n    import numpy as np"),
    (
        nothing_heavy_at_import,
        "zoo/_a.py",
        "try:\n    import keras.ops\nexcept ImportError:\n    pass",
        "import kerasy",
    ),
    (nothing_heavy_at_import, "zoo/_a.py", "class A:\n    from PIL import Image", "class A:\n    import json"),
    (nothing_heavy_at_import, "zoo/_a.py", "np = import_module('numpy')", "np = LazyModule('numpy')"),
    (nothing_heavy_at_import, "zoo/_a.py", "import zoo.layers.core", "from zoo.common.lazy import keras, layers"),
    (nothing_heavy_at_import, "zoo/layers/core.py", "import tensorflow", "import keras"),
    (nothing_heavy_at_import, "zoo/_a.py", "if True:\n    import rich.table", "if TYPE_CHECKING:\n    import keras"),
    (annotations_are_lazy, "zoo/_a.py", '"""Doc."""\nimport json', '"""Doc."""\nfrom __future__ import annotations'),
    (annotations_are_lazy, "zoo/_a.py", "x = 1", '"""Only a docstring."""'),
    (functions_are_short, "zoo/_a.py", long_function(61), long_function(60)),
    (
        parameters_are_few,
        "zoo/_a.py",
        "def f(a, b, c, d, /, e, f, *, g, h, i): ...",
        "def f(a, b, c, d, e, *, f, g, h): ...",
    ),
    (files_are_short, "zoo/_a.py", "x = 1\n" * 251, "x = 1\n\n# why\n" * 250),
    (shared_code_knows_no_content, "zoo/_a.py", "if name == 'resnet50': ...", "if name == 'float32': ..."),
    (shared_code_knows_no_content, "zoo/_a.py", "if name in ('a', 'mlp'): ...", "if name in names: ..."),
    (shared_code_knows_no_content, "zoo/_a.py", "if spec.family != 'vgg': ...", "if family == spec.family: ..."),
    (shared_code_knows_no_content, "export/_a.py", "if fmt == other + 'x': ...", "if fmt == other: ..."),
    (
        shared_code_knows_no_content,
        "export/_a.py",
        "match name:\n    case 'tflite': ...",
        "match name:\n    case 'x': ...",
    ),
    (shared_code_knows_no_content, "export/_a.py", "WRITERS = {'onnx': 1}", "WRITERS = {'width': 1}"),
    (shared_code_knows_no_content, "zoo/_a.py", "name.startswith('resnet')", "name.startswith('_')"),
    (public_signatures_are_typed, "zoo/_a.py", "def f(a) -> None: ...", "def _f(a): ..."),
    (public_signatures_are_typed, "zoo/_a.py", "def f(a: int): ...", "def f(a: int) -> None:\n    def g(a): ..."),
    (public_signatures_are_typed, "zoo/_a.py", "def f(*a) -> int: ...", "def f(*a: int, **b: int) -> int: ..."),
    (
        public_signatures_are_typed,
        "zoo/_a.py",
        "class A:\n    def __init__(self, a) -> None: ...",
        "class A:\n    def f(self, a: int) -> None: ...",
    ),
    (public_things_are_documented, "zoo/_a.py", "x = 1", '"""Doc."""'),
    (public_things_are_documented, "zoo/_a.py", '"""D."""\ndef f(): ...', '"""D."""\ndef _f(): ...'),
    (public_things_are_documented, "zoo/_a.py", '"""D."""\nclass A: ...', '"""D."""\nclass A:\n    """D."""'),
    (
        public_things_are_documented,
        "zoo/_a.py",
        '"""D."""\nclass A:\n    """D."""\n    def f(self): ...',
        '"""D."""\nclass A:\n    """D."""\n    def __init__(self): ...',
    ),
    (nothing_runs_data, "zoo/_a.py", "def f():\n    import pickle", "import json"),
    (nothing_runs_data, "zoo/_a.py", "eval('1')", "model.eval()"),
    (nothing_runs_data, "zoo/_a.py", "exec(text)", "executor(text)"),
    (nothing_runs_data, "zoo/_a.py", "np.load(p, allow_pickle=True)", "np.load(p, allow_pickle=False)"),
    (nothing_runs_data, "zoo/_a.py", "load_model(p, safe_mode=False)", "load_model(p, safe_mode=True)"),
    (errors_are_not_swallowed, "zoo/_a.py", "try: f()\nexcept: g()", "try: f()\nexcept OSError: pass"),
    (errors_are_not_swallowed, "zoo/_a.py", "try: f()\nexcept Exception: pass", "try: f()\nexcept Exception: g()"),
    (errors_are_not_swallowed, "zoo/_a.py", "try: f()\nexcept (E, BaseException): pass", "try: f()\nexcept E: pass"),
    (errors_are_not_swallowed, "zoo/_a.py", "with suppress(Exception): f()", "with suppress(OSError): f()"),
    (nothing_is_asserted, "zoo/_a.py", "def f(a):\n    assert a", "def f(a):\n    '''We assert that.'''"),
    (packages_are_declared, "zoo/_a.py", "import pandas", "import click, json, zoo"),
    (packages_are_declared, "zoo/_a.py", "def f():\n    import torch.nn", "def f():\n    from PIL import Image"),
    (packages_are_declared, "zoo/_a.py", "x = LazyModule('flax.linen')", "x = LazyModule('tf2onnx')"),
]
RULES = dict.fromkeys(rule for rule, *_ in CONTROLS)
by_name = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)


@by_name
def test_rule_holds(rule):
    """The rule finds nothing in the three rooms."""
    assert [f"{module.path}: {fault}" for module in modules(*ROOMS) for fault in rule(module)] == []


@pytest.mark.parametrize(
    ("rule", "path", "bad", "good"), CONTROLS, ids=[f"{rule.__name__}-{bad[:40]}" for rule, _, bad, _ in CONTROLS]
)
def test_rule_can_fail(rule, path, bad, good):
    """The rule refuses what is wrong, and only that."""
    assert list(rule(parse(path, bad)))
    assert list(rule(parse(path, good))) == []


def test_command_alone_imports_all_rooms():
    """The exception to the direction of imports is the command's own file and no other."""
    source = "import export, training"
    assert list(imports_run_one_way(parse(COMMAND, source))) == []
    assert list(imports_run_one_way(parse("zoo/__init__.py", source)))


def test_tests_and_benchmarks_have_lazy_annotations():
    """The same first line as in the rooms."""
    found = modules("tests", "benchmarks")
    assert len(found) > 5
    assert [module.path for module in found if list(annotations_are_lazy(module))] == []


def test_rooms_are_found():
    """The control of all rules: they read the files that are there, and know content from plumbing."""
    paths = {module.path for module in modules(*ROOMS)}
    assert {"zoo/__init__.py", "zoo/layers/core.py", "training/datasets/digits.py", "export/formats/onnx.py"} <= paths
    assert {"zoo.models.resnet", "training.recipes.digits_resnet", "export.formats.tflite"} <= content_modules()
    assert not any("._" in name or "__" in name for name in content_modules())
    assert {"resnet50", "resnet", "digits", "digits_resnet", "tflite", "prune"} <= content_names()


def test_most_functions_are_short():
    """Half of all functions have fewer than 10 lines, nine in ten fewer than 30."""
    lengths = sorted(length(f) for module in modules(*ROOMS) for f in functions(module.tree))
    assert len(lengths) > 100
    assert lengths[len(lengths) // 2] < 10
    assert lengths[len(lengths) * 9 // 10] < 30
    assert [length(f) for f in functions(ast.parse(long_function(12)))] == [12]


def test_nothing_heavy_is_imported(python):
    """Every module of the rooms can be imported without one of the heavy packages, but the layers themselves."""
    names = [m.path[:-3].replace("/", ".").removesuffix(".__init__") for m in modules(*ROOMS)]
    light = [name for name in names if name not in HEAVY]
    check = f"import importlib, sys\nfor n in {light}: importlib.import_module(n)\nprint(*{HEAVY} & set(sys.modules))"
    control = python("-c", "import numpy\n" + check)
    process = python("-c", check)
    out, err = process.communicate(timeout=120)
    assert (out.strip(), process.returncode) == ("", 0), err
    assert control.communicate(timeout=120)[0].strip() == "numpy"


PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
PLATFORMS = ["linux", "darwin"]


@pytest.mark.parametrize(("version", "platform"), list(itertools.product(PYTHONS, PLATFORMS)))
def test_everything_is_pinned_once(version, platform):
    """For each Python and platform a package has one version at most, and what setup.cfg asks for has a fitting one."""
    found = pins((ROOT / "constraints.txt").read_text(), version, platform)
    names = [name for name, _ in found]
    assert sorted(names) == sorted(set(names))
    for name, requirement in declared("dev").items():
        assert name in names, f"{name} is not pinned"
        assert requirement.specifier.contains(dict(found)[name], prereleases=True), name


def test_pins_are_read():
    """The control: a package pinned twice is seen, one for another Python is not, and a range is no pin."""
    text = "a==1 ; python_version < '3.11'\na==2 ; python_version >= '3.11'\nA_b==1\na-b==2"
    assert pins(text, "3.12", "linux") == [("a", "2"), ("a-b", "1"), ("a-b", "2")]
    with pytest.raises(AssertionError):
        pins("a>=1", "3.12", "linux")


def test_supported_pythons():
    """Every Python that setup.cfg names is inside python_requires, and those pinned are all of them."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    named = re.findall(r"Python :: (3\.\d+)", config["metadata"]["classifiers"])
    allowed = Requirement(f"zoo{config['options']['python_requires']}").specifier
    assert named == PYTHONS == [f"3.{minor}" for minor in range(30) if f"3.{minor}" in allowed]


def test_every_package_is_shipped():
    """The packages of setup.cfg are the folders that there are, and files that are no Python are package data."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    found = {Path(m.path).parent.as_posix().replace("/", ".") for m in modules(*ROOMS)}
    assert set(config["options"]["packages"].split()) == found
    data = {f"{room}/{file}" for room, files in config["options.package_data"].items() for file in files.split()}
    others = {p.relative_to(ROOT).as_posix() for room in ROOMS for p in (ROOT / room).rglob("*") if p.is_file()}
    assert {path for path in others if not path.endswith((".py", ".pyc"))} == data


def test_tests_are_no_package():
    """tf2onnx brings a package named tests; ours must not be one."""
    assert list((ROOT / "tests").rglob("__init__.py")) == []
    assert list((ROOT / "tests").rglob("test_*.py"))


def test_nothing_is_mocked():
    """Converters and runtimes are the real ones in every test."""
    found = [(m.path, name) for m in modules("tests") for name in imported(ast.walk(m.tree))]
    assert [path for path, name in found if under(name, {"unittest.mock", "mock", "pytest_mock"})] == []
    assert under("unittest.mock.patch", {"unittest.mock"})
