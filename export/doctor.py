"""Which converters and runtimes work here: each is tried on a model of two layers, in processes of their own.

Called as `python -m export.doctor JOB.json`: writes one JSON line on standard output for each thing tried.
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
from typing import Any

import click

from export.convert_worker import child_environment
from export.core.compression import compressions
from export.core.format import formats
from zoo.common.errors import MissingDependency, ZooError

WORKS, BROKEN, MISSING = "works", "broken", "not installed"
SECONDS = 180.0  # for an import
DIED = "Its process died of it. Install its packages as constraints.txt pins"


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of a trial.

    Args:
        name: of the format or compression.
        kind: "format" or "compression".
        state: "works", "broken" or "not installed".
        seconds: how long it took.
        versions: of what it needs, by package; None for what is missing.
        reason: why it does not work, and what mends that.
    """

    name: str
    kind: str
    state: str
    seconds: float
    versions: dict[str, str | None]
    reason: str = ""

    @property
    def versions_text(self) -> str:
        """The versions in words."""
        return ", ".join(f"{package} {version or 'missing'}" for package, version in self.versions.items())

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-safe values."""
        return dataclasses.asdict(self)


def diagnose(hidden: Sequence[str] = (), progress: bool = False, names: Sequence[str] = ()) -> list[Result]:
    """Try every format and compression.

    Args:
        hidden: modules that the trials cannot import, as where an installation is broken.
        progress: name what is tried on standard error.
        names: only these formats and compressions; all by default.

    Returns:
        One result each, formats first.
    """
    found = [_format_result(name) for name in formats.names() if not names or name in names]
    wanted = [result.name for result in found if result.state == WORKS]
    seconds = {}
    for name, reply in _trials(wanted, hidden):
        seconds[name] = reply
        if progress:
            click.echo(f"{name}: {'works' if not reply['error'] else 'broken'}", err=True)
    tried = [_tried(result, seconds.get(result.name)) for result in found]
    chosen = [name for name in compressions.names() if not names or name in names]
    return tried + [_compression_result(name) for name in chosen]


def _format_result(name: str) -> Result:
    """Return whether what a format needs is installed."""
    return _installed(name, "format", formats[name].packages)


def _installed(name: str, kind: str, modules: Sequence[str]) -> Result:
    """Return the versions of what something needs, and whether all of it is installed."""
    versions = {_package(module): _version(module) for module in modules}
    missing = [package for package, version in versions.items() if version is None]
    reason = f"It needs what is not installed. Run: pip install {' '.join(missing)}" if missing else ""
    return Result(name, kind, MISSING if missing else WORKS, 0.0, versions, reason)


def _package(module: str) -> str:
    """Return what to install for a module; those that we need are called alike."""
    return module.replace("_", "-")


def _version(module: str) -> str | None:
    """Return the version of an installed module, None if there is none; it is not imported."""
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return importlib.metadata.version(_package(module))
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _tried(result: Result, reply: dict[str, Any] | None) -> Result:
    """Return a result with what its trial said."""
    if reply is None:
        return result
    state = BROKEN if reply["error"] else WORKS
    return dataclasses.replace(result, state=state, seconds=reply["seconds"], reason=reply["error"])


def _compression_result(name: str) -> Result:
    """Import what a compression needs in a process of its own, for tfmot changes the process that does."""
    modules = compressions[name].packages
    result = _installed(name, "compression", modules)
    if result.state != WORKS:
        return result
    start = time.monotonic()
    error = _import(tuple(modules))
    return _tried(result, {"error": error, "seconds": time.monotonic() - start})


_imported: dict[tuple[str, ...], str] = {}


def _import(modules: tuple[str, ...]) -> str:
    """Return why modules cannot be imported together, "" if they can; each set is tried once."""
    if modules not in _imported:
        # tfmot makes Keras 2 of tf.keras unless that was touched before.
        code = "import tensorflow as tf; tf.keras.Model\n" + "".join(f"import {module}\n" for module in modules)
        try:
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, env=child_environment(), timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            return f"Importing {', '.join(modules)} did not end in {SECONDS:g} s"
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        _imported[modules] = f"{(lines or ['It died'])[-1][:200]}. Install it anew" if done.returncode else ""
    return _imported[modules]


def _trials(names: Sequence[str], hidden: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Try formats in a process; if it dies, the one that it died of is broken, and another tries the rest."""
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
            first = left.pop(0)
            yield first, {"seconds": time.monotonic() - start, "error": DIED}


def _replies(job: Path) -> Iterator[dict[str, Any]]:
    """Yield what a process says."""
    command = [sys.executable, "-m", "export.doctor", str(job)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=child_environment()) as child:
        try:
            for line in child.stdout:
                if line.startswith(b'{"zoo":'):
                    yield json.loads(line)["zoo"]
        except BaseException:
            child.kill()
            raise


@dataclasses.dataclass(frozen=True)
class _Hidden:
    """An importer that knows nothing of some modules, and lets nobody else look for them.

    Args:
        names: the modules.
    """

    names: tuple[str, ...]

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> None:
        """Raise ModuleNotFoundError for a hidden module."""
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _main(job: Path) -> None:
    """Try formats in this process."""
    content = json.loads(job.read_text(encoding="utf-8"))
    sys.meta_path.insert(0, _Hidden(tuple(content["hidden"])))
    source, inputs, logits = _small(job.parent)
    for name in content["formats"]:
        start = time.monotonic()
        error = _try(source, name, inputs, logits)
        reply = {"format": name, "seconds": time.monotonic() - start, "error": error}
        print(json.dumps({"zoo": reply}), flush=True)


def _small(folder: Path) -> tuple[Any, Any, Any]:
    """Return a source of two layers, inputs, and what they give."""
    import zoo
    from export.source.source import Source
    from zoo.common.lazy import keras, np

    keras.utils.set_random_seed(0)
    draw = np.random.default_rng(0)
    inputs = draw.integers(0, 256, (32, 8, 8, 3)).astype("float32")
    given = keras.Input(inputs.shape[1:], name="image")
    x = keras.layers.Conv2D(8, 3, activation="relu", name="convolution")(given)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    network = keras.Model(given, keras.layers.Dense(4, name="logits")(x), name="doctor")
    source = Source(network, zoo.PreprocessingConfig((127.5,), (60.0,)), list("abcd"), lambda: inputs, folder)
    return source, inputs, source.model.predict(inputs, verbose=0)


def _try(source: Any, name: str, inputs: Any, logits: Any) -> str:
    """Write a format, load it in its runtime and compare; return "" or what went wrong, in a line."""
    from zoo.common.lazy import np

    try:
        found = formats[name].load(source.shared(name))(inputs)
    except ModuleNotFoundError as error:
        return _missing(error)
    except ZooError as error:
        return f"{' '.join(str(error).split())[:300]}"
    except Exception as error:
        # Converters and runtimes raise whatever their dependencies raise; the line names it.
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:240]}"
        return f"{reason}. Install its packages as constraints.txt pins"
    difference = float(np.abs(found - logits).max() / np.abs(logits).max())
    allowed = formats[name].tolerance.relative
    return "" if difference <= allowed else f"It answers otherwise than Keras, by {difference:.2g} of the largest logit"


def _missing(error: ModuleNotFoundError) -> str:
    """Return what to install for a module that is not there."""
    if isinstance(error, MissingDependency):
        return str(error)
    module = (error.name or "").partition(".")[0]
    return f"The module {module!r} is missing. Run: pip install {_package(module)}"


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
