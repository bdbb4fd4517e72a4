"""The page of `benchmarks/coverage.py`, its comparison, and a real cell that ends well, in a refusal, or too late."""

from __future__ import annotations

import importlib.util
import json
import sys

import numpy as np
import pytest

NAMES = ("coverage", "coverage_cell", "coverage_page", "coverage_runtimes", "exporting")
SOURCE = '''"""One small model."""

from __future__ import annotations

import numpy as np


def dense():
    import keras

    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])


def noisy():
    import keras

    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.Lambda(lambda x: 2 * x)])


def inputs_of(model, rows=2, seed=0):
    return [np.random.default_rng(seed).random((rows, 8)).astype("float32")]


MODELS = {"dense": dense, "noisy": noisy}
'''


@pytest.fixture(scope="module")
def coverage(root):
    """The script, as a module."""
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("coverage", root / "benchmarks" / "coverage.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.fixture
def source(tmp_path):
    """The path of a user's module."""
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def passed(seconds=1.0, **more):
    """A cell that passed."""
    return {"state": "pass", "reason": "", "seconds": seconds, "memory": 100, "bytes": 50, "foreign": [], **more}


def stopped(state, reason):
    """A cell that did not pass."""
    return {"state": state, "reason": reason}


def test_page(coverage):
    """It counts, divides ours by Keras', prints a reason once, and names what was not run."""
    reason = "ValueError: no a in /some/where/file.py"
    rows = {
        "a": {"ours": {"onnx": passed(4.0), "onnx_int8": passed()}, "keras": {"onnx": passed(2.0)}},
        "b": {
            "ours": {
                "onnx": stopped("refused", "UnsupportedExport: see https://keras.io/api."),
                "onnx_int8": passed(),
            },
            "keras": {"onnx": stopped("fail", reason)},
        },
        "c": {
            "ours": {"onnx": passed(3.0, foreign=["com.microsoft.Gelu"]), "onnx_int8": stopped("fail", "died")},
            "keras": {"onnx": stopped("fail", reason)},
        },
    }
    text = coverage.page({"mine": coverage.Source("Three.", rows, ["d", "e"])}, ("onnx", "onnx_int8"), 180.0)
    lines = text.splitlines()
    assert "| onnx | 2 | 1 | 0 | 1 | 2 | 1 | 2.00 | 1.00 | 1.00 |" in lines
    assert "| onnx_int8 | 2 | 0 | 1 | – | – | – | – | – | – |" in lines
    assert "| a | 4.0 s / 2.0 s | 1.0 s / – |" in lines
    assert "| b | refused (1) / **fail** (2) | 1.0 s / – |" in lines
    assert "| c | 3.0 s (3) / **fail** (2) | **fail** (4) / – |" in lines
    assert "1. b, ours: UnsupportedExport: see https://keras.io/api" in lines
    assert "2. b, c, Keras': ValueError: no a in file.py" in lines
    assert "3. c, ours: Operators that plain LiteRT or ONNX lacks: com.microsoft.Gelu" in lines
    assert "Not run: d, e." in lines


def test_page_of_nothing(coverage):
    """Without a finished model, there is no table."""
    text = coverage.page({"mine": coverage.Source("Two.", {}, ["d", "e"])}, ("onnx",), 180.0)
    assert "| onnx | 0 | 0 | 0 | – | – | – | – | – | – |" in text
    assert text.endswith("## mine\n\nTwo.\n\nNot run: d, e.\n")


def test_difference(coverage):
    """Outputs may be in another order; another number or shape, and what is not finite, is an error."""
    module = sys.modules["coverage_runtimes"]
    first, second = np.array([[1.0, -2.0]], "float32"), np.array([[4.0, 3.0]], "float32")
    assert module.difference([first, second], [second, first], module.largest) == 0
    assert module.difference([first], [first + 0.5], module.largest) == pytest.approx(0.25)
    assert module.difference([second], [second * 1.1], module.typical) == pytest.approx(0.1, rel=1e-4)
    for bad in ([], [first.T], [first * np.nan]):
        with pytest.raises(ValueError, match=r"outputs|shape|finite"):
            module.difference([first], bad, module.largest)


def test_feed(coverage):
    """Inputs go by name if all names are equal, else to the first input of their shape and kind."""
    module = sys.modules["coverage_runtimes"]
    image, ids = np.zeros((2, 4, 4, 3), "float32"), np.zeros((2, 6), "int32")
    ports = [module.Port("ids", (None, 6), "int64"), module.Port("image", (-1, 4, 4, 3), "float32")]
    assert [value.ndim for value in module.feed(ports, ["image", "ids"], [image, ids])] == [2, 4]
    assert [value.ndim for value in module.feed(ports, ["x", "y"], [image, ids])] == [2, 4]
    with pytest.raises(ValueError, match="No array fits the input 'ids'"):
        module.feed(ports, ["x", "y"], [image, image])


def test_one_by_one(coverage):
    """A file of a fixed batch of 1 gets the rows one by one."""
    module, seen = sys.modules["coverage_runtimes"], []

    def call(values):
        seen.append(len(values[0]))
        return [2 * values[0]]

    rows = np.arange(6.0).reshape(3, 2)
    for size, counts in ((1, [1, 1, 1]), (None, [3])):
        seen.clear()
        (found,) = module.in_batches([module.Port("x", (size, 2), "float32")], [rows], call)
        assert seen == counts
        assert (found == 2 * rows).all()


def test_bad_source(coverage, tmp_path):
    """What is no module of models ends in one line."""
    with pytest.raises(SystemExit, match=r"applications or a Python file. Received: 'absent'"):
        coverage.main(["--sources", "absent", "--out", str(tmp_path / "page.md")])
    (tmp_path / "empty.py").write_text("MODELS = {}\n")
    with pytest.raises(SystemExit, match=r"to have MODELS and inputs_of. Received: .* without inputs_of"):
        coverage.main(["--sources", str(tmp_path / "empty.py"), "--out", str(tmp_path / "page.md")])


@pytest.mark.slow
@pytest.mark.tensorflow
def test_real_cells(coverage, source, tmp_path):
    """Both exports of a model pass; a finished cell is not measured again; what is not finished is no row."""
    given = ["--sources", str(source), "--folder", str(tmp_path / "cells"), "--out", str(tmp_path / "page.md")]
    coverage.main([*given, "--models", "dense", "--formats", "onnx"])
    file = tmp_path / "cells" / "mine" / "dense.json"
    cells = json.loads(file.read_text())
    for maker in ("ours", "keras"):
        cell = cells[maker]["onnx"]
        assert (cell["state"], cell["reason"], cell["foreign"]) == ("pass", "", [])
        assert 0 <= cell["error"] < 1e-5
        assert 0 < cell["seconds"] < cell["whole"]
        assert 100 < cell["bytes"] < 10_000
        assert cell["memory"] > 1_000_000
    assert "Not run: noisy." in (tmp_path / "page.md").read_text()
    written = file.stat().st_mtime_ns
    coverage.main([*given, "--models", "dense", "--formats", "onnx"])
    assert file.stat().st_mtime_ns == written


@pytest.mark.slow
@pytest.mark.tensorflow
def test_late_cell(coverage, source):
    """A cell that takes longer than its limit is a failure."""
    request = {"source": str(source), "model": "dense", "format": "onnx", "maker": "ours"}
    cells = coverage.Cells(1.0)
    found = cells.measured(request)
    cells.close()
    assert (found["state"], found["memory"]) == ("fail", 0)
    assert found["reason"].startswith("Not finished after 1 s")
    # The process was forked with TensorFlow imported.
    assert found["whole"] < 10
