"""Check which converters and runtimes work here, each on a small model in a child process.

Called as `python -m export.doctor JOB.json`, it writes one JSON line on standard output for each format.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from export.conversion.worker import child_environment
from export.core.compression import compressions
from export.core.format import formats
from zoo.common.ending import child_process, end_with_parent
from zoo.common.errors import MissingDependency, ZooError

WORKS, BROKEN, MISSING = "works", "broken", "not installed"
IMPORT_TIMEOUT = 180.0  # seconds
REINSTALL = "Install the packages that constraints.txt pins"


@dataclasses.dataclass(frozen=True)
class DoctorResult:
    """The result of one check.

    Args:
        name: name of the format or compression.
        kind: "format" or "compression".
        status: "works", "broken" or "not installed".
        seconds: duration of the check.
        versions: version of each required package; None for a missing one.
        reason: why it does not work, and how to fix it.
    """

    name: str
    kind: str
    status: str
    seconds: float
    versions: dict[str, str | None]
    reason: str = ""

    @property
    def versions_text(self) -> str:
        """The versions as text."""
        return ", ".join(f"{package} {version or 'missing'}" for package, version in self.versions.items())

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON-safe values."""
        return dataclasses.asdict(self)


def check_installation(
    hidden: Sequence[str] = (), progress: bool = False, names: Sequence[str] = ()
) -> list[DoctorResult]:
    """Check every format and compression.

    Args:
        hidden: modules that the checks cannot import, to simulate a broken installation.
        progress: print each format on standard error when it is done.
        names: formats and compressions to check, with wildcards; all by default.

    Returns:
        One result each, formats first.
    """
    results = [_installed(name, "format", formats[name].packages) for name in formats.names(*names)]
    installed = [result.name for result in results if result.status == WORKS]
    replies = {}
    for name, reply in _check_formats(installed, hidden):
        replies[name] = reply
        if progress:
            click.echo(f"{name}: {'works' if not reply['error'] else 'broken'}", err=True)
    checked = [_with_reply(result, replies.get(result.name)) for result in results]
    return checked + [_compression_result(name) for name in compressions.names(*names)]


def _installed(name: str, kind: str, modules: Sequence[str]) -> DoctorResult:
    """Return the versions of required modules, and whether all are installed."""
    versions = {_package(module): _version(module) for module in modules}
    missing = [package for package, version in versions.items() if version is None]
    reason = f"Packages are missing. Run: pip install {' '.join(missing)}" if missing else ""
    return DoctorResult(name, kind, MISSING if missing else WORKS, 0.0, versions, reason)


def _package(module: str) -> str:
    """Return the package that installs a module."""
    return module.replace("_", "-")


def _version(module: str) -> str | None:
    """Return the version of a module without importing it; None if it is not installed."""
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return importlib.metadata.version(_package(module))
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _with_reply(result: DoctorResult, reply: dict[str, Any] | None) -> DoctorResult:
    """Return a result updated with the reply of its check."""
    if reply is None:
        return result
    status = BROKEN if reply["error"] else WORKS
    return dataclasses.replace(result, status=status, seconds=reply["seconds"], reason=reply["error"])


def _compression_result(name: str) -> DoctorResult:
    """Import the packages of a compression in a child process, because tfmot changes the process that imports it."""
    modules = compressions[name].packages
    result = _installed(name, "compression", modules)
    if result.status != WORKS:
        return result
    start = time.monotonic()
    error = _import_error(tuple(modules))
    return _with_reply(result, {"error": error, "seconds": time.monotonic() - start})


_import_errors: dict[tuple[str, ...], str] = {}


def _import_error(modules: tuple[str, ...]) -> str:
    """Return why modules cannot be imported together, "" if they can; each set is imported once."""
    if modules not in _import_errors:
        # tfmot replaces tf.keras by Keras 2 unless it was imported before.
        code = "import tensorflow as tf; tf.keras.Model\n" + "".join(f"import {module}\n" for module in modules)
        command = [sys.executable, "-c", code]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=child_environment(), timeout=IMPORT_TIMEOUT
            )
        except subprocess.TimeoutExpired:
            return f"Importing {', '.join(modules)} took more than {IMPORT_TIMEOUT:g} s"
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        error = f"{(lines or ['The process died'])[-1][:200]}. Reinstall the package"
        _import_errors[modules] = error if done.returncode else ""
    return _import_errors[modules]


def _check_formats(names: Sequence[str], hidden: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Check formats in a child process; if it dies, report the current format and check the rest in another."""
    left = list(names)
    while left:
        done = []
        with tempfile.TemporaryDirectory() as folder:
            job = Path(folder) / "job.json"
            job.write_text(json.dumps({"formats": left, "hidden": list(hidden)}), encoding="utf-8")
            start = time.monotonic()
            for reply in _replies(job):
                done.append(reply["format"])
                yield reply["format"], reply
        left = left[len(done) :]
        if left:
            error = f"The process died while checking it. {REINSTALL}"
            yield left.pop(0), {"seconds": time.monotonic() - start, "error": error}


def _replies(job: Path) -> Iterator[dict[str, Any]]:
    """Yield the replies of the child process."""
    command = [sys.executable, "-m", "export.doctor", str(job)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with child_process(command, child_environment(), **streams) as child:
        for line in child.stdout:
            if line.startswith(b'{"zoo":'):
                yield json.loads(line)["zoo"]
        child.wait()


class _HiddenModules(NamedTuple):
    """A finder for `sys.meta_path` that makes some modules unimportable."""

    names: tuple[str, ...]

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> None:
        """Raise ModuleNotFoundError for a hidden module."""
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _main(job: Path) -> None:
    """Check formats in this process."""
    content = json.loads(job.read_text(encoding="utf-8"))
    sys.meta_path.insert(0, _HiddenModules(tuple(content["hidden"])))
    source, inputs, logits = _small_source(job.parent)
    for name in content["formats"]:
        start = time.monotonic()
        error = _format_error(source, name, inputs, logits)
        reply = {"format": name, "seconds": time.monotonic() - start, "error": error}
        print(json.dumps({"zoo": reply}), flush=True)  # noqa: T201


def _small_source(folder: Path) -> tuple[Any, Any, Any]:
    """Return a source of two layers, inputs (32, 8, 8, 3), and its logits (32, 4)."""
    import zoo
    from export.source.source import SourceModel
    from zoo.common.lazy import keras, np

    keras.utils.set_random_seed(0)
    inputs = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3)).astype("float32")
    image = keras.Input(inputs.shape[1:], name="image")
    x = keras.layers.Conv2D(8, 3, activation="relu", name="convolution")(image)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, keras.layers.Dense(4, name="logits")(x), name="doctor")
    source = SourceModel(
        model, zoo.PreprocessingConfig((127.5,), (60.0,)), list("abcd"), lambda count: inputs[:count], folder
    )
    return source, inputs, source.model.predict(inputs, verbose=0)


def _format_error(source: Any, name: str, inputs: Any, logits: Any) -> str:
    """Export to a format, load it in its runtime and compare; return "" or the error in one line."""
    from zoo.common.lazy import np

    try:
        outputs = formats[name].load(source.artifact_path(name))(inputs)
    except ModuleNotFoundError as error:
        return _missing_module(error)
    except ZooError as error:
        return f"{' '.join(str(error).split())[:300]}"
    except Exception as error:
        # Converters and runtimes raise the classes of their dependencies; the message names the class.
        return f"{type(error).__name__}: {' '.join(str(error).split())[:240]}. {REINSTALL}"
    difference = float(np.abs(outputs - logits).max() / np.abs(logits).max())
    if difference <= formats[name].tolerance.relative:
        return ""
    return f"The outputs differ from Keras' by {difference:.2g} of the largest logit. {REINSTALL}"


def _missing_module(error: ModuleNotFoundError) -> str:
    """Return how to install a missing module."""
    if isinstance(error, MissingDependency):
        return str(error)
    module = (error.name or "").partition(".")[0]
    return f"The module {module!r} is missing. Run: pip install {_package(module)}"


if __name__ == "__main__":
    end_with_parent()
    _main(Path(sys.argv[1]))
