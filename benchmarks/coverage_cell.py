"""Cells of `benchmarks/coverage.py`, each in a process of its own: build, export, run in the real runtime, compare.

These processes are forked from one that has imported Keras and TensorFlow and has run nothing.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
PASS, REFUSED, FAIL = "pass", "refused", "fail"
SEED = 1
# Examples that files are compared on, and others that our export calibrates and compares on.
COMPARED, CALIBRATED = (2, 0), (32, 1)  # rows, seed
STAGE, RESULT, LOG = "stage", "result.json", "log"
EXPORTING = "exporting"
REASON = 400  # characters
IMAGE = (32, 32, 3)  # of a model that does not say what it takes


def open_source(path: str) -> ModuleType:
    """Return the module of a Python file: MODELS, inputs_of(model, rows, seed) and possibly settle(model).

    Raises:
        SystemExit: there is no such file, or it is no such module.
    """
    file = Path(path)
    if not file.is_file():
        sys.exit(f"Expected a source to be applications or a Python file. Received: {path!r}.")
    sys.path.insert(0, str(file.resolve().parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    missing = [name for name in ("MODELS", "inputs_of") if not hasattr(module, name)]
    if missing:
        sys.exit(f"Expected a source to have MODELS and inputs_of. Received: {path!r} without {' and '.join(missing)}.")
    return module


def examples(module: ModuleType, model: Any, count: tuple[int, int]) -> list[Any]:
    """Return arrays of so many rows with a seed, one for each input; see `count`."""
    import numpy as np

    rows, seed = count
    if getattr(model, "inputs", None):
        return list(module.inputs_of(model, rows=rows, seed=seed))
    # A subclassed model has no inputs, but the shape that it was built with.
    shape = (getattr(model, "get_build_config", dict)() or {}).get("input_shape") or (None, *IMAGE)
    return [np.random.default_rng(seed).random((rows, *shape[1:])).astype("float32")]


def ours(model: Any, name: str, folder: Path, calibration: list[Any]) -> Path:
    """Export with this package; returns the path of the artifact."""
    import export

    data = calibration[0] if len(calibration) == 1 else calibration
    (artifact,) = export.convert(model, name, calibration=data, out=folder / "ours")
    return Path(artifact.path)


def keras_own(model: Any, name: str, folder: Path, calibration: list[Any]) -> Path:
    """Export with Keras' own `model.export`; returns the path of the file."""
    del calibration
    from coverage_runtimes import KERAS_FORMATS

    own, file = KERAS_FORMATS[name]
    model.export(str(folder / file), format=own, verbose=False)
    return folder / file


MAKERS: dict[str, Callable[..., Path]] = {"ours": ours, "keras": keras_own}


def is_refusal(error: BaseException) -> bool:
    """Return whether an error of ours says in one line why a format does not take a model."""
    from zoo.common.errors import BadOption, UnsupportedExport

    return isinstance(error, (UnsupportedExport, BadOption)) and "\n" not in str(error)


def one_line(error: BaseException) -> str:
    """Return the type and the beginning of the message of an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:REASON]


def cell(request: dict[str, str], folder: Path) -> dict[str, Any]:
    """Return what came of a cell.

    Args:
        request: "source", a path; "model", "format" and "maker", names.
        folder: for files; "stage" in it says what this process is doing.

    Returns:
        "state", "reason", "idle" (bytes), and after an export "seconds", "bytes", "foreign" operators and "error", the
        largest difference as a fraction of the largest output.
    """
    import keras
    from exporting import allocated

    found: dict[str, Any] = {"state": FAIL, "reason": "", "idle": allocated(os.getpid())}
    module = open_source(request["source"])
    try:
        keras.utils.set_random_seed(SEED)
        model = getattr(module, "settle", lambda built: built)(module.MODELS[request["model"]]())
        arrays, calibration = examples(module, model, COMPARED), examples(module, model, CALIBRATED)
        expected = model.predict(arrays[0] if len(arrays) == 1 else arrays, verbose=0)
    except Exception as error:
        return found | {"reason": f"The model was not built: {one_line(error)}"}
    return found | exported(request, folder, model, (arrays, calibration, expected))


def exported(request: dict[str, str], folder: Path, model: Any, data: tuple[Any, Any, Any]) -> dict[str, Any]:
    """Export a model, run the file and compare its outputs with those of the model."""
    from coverage_runtimes import facts, passes

    arrays, calibration, expected = data
    found: dict[str, Any] = {"state": FAIL}
    (folder / STAGE).write_text(EXPORTING)
    start = time.perf_counter()
    try:
        path = MAKERS[request["maker"]](model, request["format"], folder, calibration)
        found["seconds"] = time.perf_counter() - start
        (folder / STAGE).write_text("running")
        found |= facts(path)
        found |= passes(request["format"], path, model, (arrays, expected))
    except Exception as error:
        found |= {"state": REFUSED if is_refusal(error) else FAIL, "reason": one_line(error)}
    return found


def run(request: dict[str, str], folder: Path) -> None:
    """Write the result of a cell to a file, and what is printed to another."""
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT)
    for handle in (1, 2):
        os.dup2(log, handle)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    result = cell(request, folder)
    (folder / RESULT).write_text(json.dumps(result))


def serve() -> None:
    """Import Keras and TensorFlow once, and fork a process for each line of standard input.

    A line is JSON: a request and a folder. The process id is printed, and when it has ended, its exit code.
    """
    import keras  # noqa: F401
    import tensorflow  # noqa: F401
    from exporting import allocated  # noqa: F401 - which imports our package too

    for line in sys.stdin:
        request, folder = json.loads(line)
        process = os.fork()
        if not process:
            code = 1
            try:
                run(request, Path(folder))
                code = 0
            finally:
                os._exit(code)
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
