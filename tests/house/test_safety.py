"""House rules about safety: no file runs code, no error is dropped, shared code knows no content."""

from __future__ import annotations

import ast
import functools
import re

import pytest
from source_tree import PACKAGES, called, imported, is_content, modules, parse, under

from export.core.compression import compressions
from export.core.format import formats
from training.data.dataset import datasets
from training.recipe.recipe import recipes
from zoo.specs.registry import models
from zoo.specs.tasks import TASKS

UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
# Names with another meaning in shared code: two libraries, and a precision of training.
AMBIGUOUS = {"keras", "openvino", "mixed_precision"}


@functools.cache
def content_names():
    """Every registered name of every kind, and the families."""
    families = {models[name].spec.family for name in models.names()}
    registries = (models, formats, compressions, datasets, recipes)
    return {*families, *(name for registry in registries for name in registry.names())} - AMBIGUOUS


def shared_code_knows_no_content(module):
    """Shared code does not branch on the name of a model, family, dataset, recipe, format or compression."""
    # The tables of published weights belong to the families.
    own = is_content(module.path) or module.path.startswith("zoo/weights/published/")
    for node in ast.walk(module.tree):
        for value in () if own else branched_on(node):
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


def shared_code_knows_no_task(module):
    """Shared code asks `zoo.specs.tasks` in what a task differs, or has a table by task; it compares no names."""
    own = is_content(module.path) or module.path == "zoo/specs/tasks.py"
    for node in ast.walk(module.tree):
        for value in () if own else tasks_named(node, module.path in TASK_TABLES):
            yield f"line {node.lineno} tells apart {value!r}; use zoo.specs.tasks"


def tasks_named(node, has_table):
    """Names of tasks, as texts or constants, that a branch depends on, or that are listed."""
    named = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    named |= {n.id.lower() for n in ast.walk(node) if isinstance(n, ast.Name) and n.id.isupper()}
    if isinstance(node, (ast.Compare, ast.MatchValue)):
        return named & TASKS.keys()
    if isinstance(node, ast.Dict) and not has_table:
        keys = {ast.unparse(k).strip("'") for k in node.keys if isinstance(k, (ast.Constant, ast.Name))}
        return {key.lower() if key.isupper() else key for key in keys} & TASKS.keys()
    if isinstance(node, ast.Assign) and isinstance(node.value, (ast.Tuple, ast.List, ast.Set)):
        listed = {ast.unparse(element).strip("'") for element in node.value.elts}
        return listed if listed and listed <= {"", *TASKS} else set()
    return set()


# What rooms do for each task.
TASK_TABLES = {
    "training/data/pipeline/encoders.py",
    "training/learning/losses.py",
    "training/learning/multitask.py",
    "training/learning/tasks.py",
    "training/monitor/misclassified.py",
    "export/backends/litert/metadata.py",
    "export/verification/measures.py",
}


def nothing_runs_data(module):
    """No file that is read can run code: no pickle, no eval, no unsafe loading."""
    yield from (f"imports {n}" for n in imported(ast.walk(module.tree)) if under(n, UNSAFE_MODULES))
    for call in (node for node in ast.walk(module.tree) if isinstance(node, ast.Call)):
        if ast.unparse(call.func) in ("eval", "exec") or called(call) == "enable_unsafe_deserialization":
            yield f"line {call.lineno} calls {ast.unparse(call.func)}"
        for keyword, safe in (("allow_pickle", False), ("safe_mode", True)):
            for given in (k.value for k in call.keywords if k.arg == keyword):
                if not (isinstance(given, ast.Constant) and given.value is safe):
                    yield f"line {call.lineno} passes {keyword}={ast.unparse(given)}"


def errors_are_not_dropped(module):
    """No bare except, and none that catches every error and drops it."""
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


def files_are_read_in_one_room(module):
    """Keras, HDF5, safetensors, NumPy, JSON and data files, and zip archives, are opened by `zoo/reading` alone."""
    of_data = module.path.startswith(DATA_ROOMS)
    allowed = OWN_FILES.get(module.path, set())
    for call in (node for node in ast.walk(module.tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        inner = call.args[0] if call.args else None
        # Of a text that was just written: a copy.
        copied = name == "json.loads" and isinstance(inner, ast.Call) and ast.unparse(inner.func) == "json.dumps"
        method = isinstance(call.func, ast.Attribute) and called(call) in OPENING_METHODS
        opened = name in OPENING or (method and not name.startswith("zoo.")) or (of_data and opens_data(call, name))
        if opened and not copied and not module.path.startswith("zoo/reading/") and called(call) not in allowed:
            yield f"line {call.lineno} calls {name}; use zoo.reading"


def opens_data(call, name):
    """Whether a call opens a file by its path: a text, an image or a table."""
    inner = call.args[0] if call.args else None
    held = isinstance(inner, ast.Call) and called(inner) in ("BytesIO", "StringIO")
    method = isinstance(call.func, ast.Attribute) and called(call) in ("open", "read_bytes", "read_text")
    return (name in OPENING_DATA or (method and name not in OTHER_OPENING)) and not held


# Rooms that read files of data; what opens these, and what is called so and opens no file by its path.
DATA_ROOMS = ("training/data/", "training/datasets/", "training/common/", "export/source/")
OPENING_DATA = {
    "open", "os.open", "tf.io.read_file", "tf.data.TFRecordDataset", "np.genfromtxt", "np.loadtxt", "np.fromfile",
    "arrow_csv.open_csv", "arrow_csv.read_csv", "parquet.ParquetFile", "parquet.read_table", "ElementTree.parse",
}  # fmt: skip
OTHER_OPENING = {"Run.open"}
# What opens a file from outside.
OPENING = {
    "json.load", "json.loads", "np.load", "numpy.load", "np.memmap", "h5py.File", "zipfile.ZipFile", "ZipFile",
    "safe_open", "torch.load", "yaml.load", "yaml.safe_load", "tarfile.open", "keras.models.load_model",
}  # fmt: skip
OPENING_METHODS = {"load_model", "load_weights"}
# Modules that open what they or their own processes have just written, and inspectors, whose caller turns every
# failure into one line.
OWN_FILES = {
    "zoo/common/budgets.py": {"File", "ZipFile"},
    "zoo/specs/counts.py": {"loads"},
    "zoo/layers/saving.py": {"File"},
    "training/checkpoints/files.py": {"memmap"},
    # In the graph, files that were opened by the room before; and files of installed packages.
    "training/data/readers/files.py": {"read_file"},
    "training/data/readers/records.py": {"TFRecordDataset"},
    "training/common/compat.py": {"read_text"},
    "training/common/registries.py": {"read_text"},
    "training/tuning/space.py": {"loads"},
    "export/backends/keras/file.py": {"ZipFile", "loads"},
    "export/backends/keras/inspect.py": {"File"},
    "export/backends/litert/inspect.py": {"ZipFile"},
    "export/backends/litert/metadata.py": {"ZipFile"},
    "export/backends/onnx/inspect.py": {"memmap"},
    "export/backends/openvino/inspect.py": {"memmap"},
    "export/benchmark/processes.py": {"loads"},
    "export/benchmark/worker.py": {"loads"},
    "export/conversion/worker.py": {"loads"},
    "export/doctor.py": {"loads"},
}


# (rule, path, source that it refuses, source that it passes)
CONTROLS = [
    (shared_code_knows_no_content, "zoo/a.py", "if name == 'resnet50': ...", "if name == 'float32': ..."),
    (shared_code_knows_no_content, "zoo/a.py", "if name in ('a', 'mlp'): ...", "if name in names: ..."),
    (shared_code_knows_no_content, "zoo/a.py", "if spec.family != 'vgg': ...", "if family == spec.family: ..."),
    (shared_code_knows_no_content, "export/a.py", "if fmt == other + 'x': ...", "if fmt == other: ..."),
    (
        shared_code_knows_no_content,
        "export/core/a.py",
        "match name:\n    case 'tflite': ...",
        "match name:\n    case 'x': ...",
    ),
    (shared_code_knows_no_content, "export/a.py", "WRITERS = {'onnx': 1}", "WRITERS = {'width': 1}"),
    (shared_code_knows_no_content, "zoo/a.py", "name.startswith('resnet')", "name.startswith('_')"),
    (shared_code_knows_no_task, "export/a.py", "if task == 'regress': ...", "if task_of(task).numbers: ..."),
    (shared_code_knows_no_task, "training/a.py", "if task in (CLASSIFY, other): ...", "Target(CLASSIFY, labels)"),
    (shared_code_knows_no_task, "training/a.py", "match t:\n    case 'tag': ...", "get('task', 'tag')"),
    (shared_code_knows_no_task, "zoo/a.py", "SIZES = {'embed': 1}", "SIZES = {'width': 1}"),
    (shared_code_knows_no_task, "zoo/a.py", "DIRECT = ('regress', 'multilabel')", "KINDS = ('a', 'b')"),
    (nothing_runs_data, "zoo/a.py", "def f():\n    import pickle", "import json"),
    (nothing_runs_data, "zoo/a.py", "eval('1')", "model.eval()"),
    (nothing_runs_data, "zoo/a.py", "exec(text)", "executor(text)"),
    (nothing_runs_data, "zoo/a.py", "np.load(p, allow_pickle=True)", "np.load(p, allow_pickle=False)"),
    (nothing_runs_data, "zoo/a.py", "load_model(p, safe_mode=False)", "load_model(p, safe_mode=True)"),
    (files_are_read_in_one_room, "zoo/a.py", "json.loads(text)", "json.loads(json.dumps(value))"),
    (files_are_read_in_one_room, "export/a.py", "np.load(path, allow_pickle=False)", "read_npz(path)"),
    (files_are_read_in_one_room, "export/a.py", "model.load_weights(path)", "fill_weights(model, path)"),
    (files_are_read_in_one_room, "training/a.py", "keras.saving.load_model(path)", "open_model(path)"),
    (files_are_read_in_one_room, "training/a.py", "with h5py.File(path) as f: ...", "with open_h5(path) as f: ..."),
    (files_are_read_in_one_room, "zoo/a.py", "with safe_open(p, 'np') as f: ...", "zoo.load_model(path)"),
    (files_are_read_in_one_room, "training/data/a.py", "path.read_bytes()", "read_image(path)"),
    (files_are_read_in_one_room, "training/data/a.py", "with path.open('rb') as f: ...", "with open_table(path): ..."),
    (files_are_read_in_one_room, "training/datasets/a.py", "open(path)", "Run.open(path)"),
    (files_are_read_in_one_room, "training/common/a.py", "pillow.open(path)", "pillow.open(io.BytesIO(content))"),
    (files_are_read_in_one_room, "export/source/a.py", "parquet.ParquetFile(path)", "open_parquet(path)"),
    (errors_are_not_dropped, "zoo/a.py", "try: f()\nexcept: g()", "try: f()\nexcept OSError: pass"),
    (errors_are_not_dropped, "zoo/a.py", "try: f()\nexcept Exception: pass", "try: f()\nexcept Exception: g()"),
    (errors_are_not_dropped, "zoo/a.py", "try: f()\nexcept (E, BaseException): pass", "try: f()\nexcept E: pass"),
    (errors_are_not_dropped, "zoo/a.py", "with suppress(Exception): f()", "with suppress(OSError): f()"),
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
    """The rule refuses what is wrong, and passes what is right."""
    assert list(rule(parse(path, bad)))
    assert list(rule(parse(path, good))) == []


def test_content_may_branch_on_names():
    """A family's own file may compare names; the registries know all of them."""
    source = "if name == 'resnet50': ..."
    assert list(shared_code_knows_no_content(parse("zoo/models/resnet.py", source))) == []
    assert {"resnet50", "resnet", "digits", "digits_resnet", "tflite", "prune"} <= content_names()


def test_nothing_is_mocked():
    """Converters and runtimes are the real ones in every test."""
    found = [(m.path, name) for m in modules("tests") for name in imported(ast.walk(m.tree))]
    assert [path for path, name in found if under(name, {"unittest.mock", "mock", "pytest_mock"})] == []
    assert under("unittest.mock.patch", {"unittest.mock"})
