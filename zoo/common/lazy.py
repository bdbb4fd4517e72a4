"""Lazy modules: heavy libraries are imported on first use, so that listing the zoo is instant."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import types
from collections.abc import Iterator
from typing import Any

from zoo.common.errors import BadOption, MissingDependency


class LazyModule(types.ModuleType):
    """A module that is imported at the first access to one of its attributes.

    Args:
        name: dotted name of the module.
        package: name for `pip install` if the module is missing; the first part of `name` by default.
        extra: the extra of this project that installs the package; "" if the base install has it.
        before: a module that this one imports at some time on its own; it is imported first, so that it is quiet.
    """

    def __init__(self, name: str, package: str | None = None, extra: str = "", before: str = "") -> None:
        super().__init__(name)
        self._before = before
        self._package = package or name.partition(".")[0]
        self._extra = extra

    def __getattr__(self, attribute: str) -> Any:
        # Copying and inspection probe for dunders, which must not import the module.
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return getattr(self._load(), attribute)

    def _load(self) -> types.ModuleType:
        if self.__name__ in sys.modules:
            return sys.modules[self.__name__]
        try:
            with quiet_libraries():
                if self._before:
                    importlib.import_module(self._before)
                return importlib.import_module(self.__name__)
        except ModuleNotFoundError as error:
            # A missing module inside an installed package is that package's fault.
            if error.name != self.__name__.partition(".")[0]:
                raise
            raise missing(self._package, self._extra) from error
        except ValueError as error:
            # Keras validates its configuration when it is imported.
            raise _bad_configuration(error) from error


def _bad_configuration(error: ValueError) -> BadOption:
    """Return the error for a Keras configuration with which Keras does not start."""
    path = os.path.join(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"), "keras.json")
    reason = " ".join(str(error).split()).rstrip(".")
    return BadOption(f"Expected a Keras configuration ({path}, KERAS_BACKEND) that Keras accepts. {reason}. Change it.")


def missing(package: str, extra: str = "") -> MissingDependency:
    """Return the error for a package that is not installed; it names the extra that installs the package."""
    target = f'"keras-zoo[{extra}]"' if extra else package
    return MissingDependency(f"Expected an installed package. Received: package={package!r}. Run: pip install {target}")


def require(module: str, extra: str) -> None:
    """Raise MissingDependency, which names the extra, if a module is not installed; imports nothing."""
    if importlib.util.find_spec(module) is None:
        raise missing(module, extra)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Discard what native libraries print on standard error if TF_CPP_MIN_LOG_LEVEL is at least 3.

    TensorFlow obeys that variable only after it is loaded, LiteRT never. Failures still raise.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") < "3":
        yield
        return
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


keras = LazyModule("keras")
np = LazyModule("numpy")
tf = LazyModule("tensorflow")
hub = LazyModule("huggingface_hub")
tfds = LazyModule("tensorflow_datasets", "tensorflow-datasets", before="tensorflow")
