"""Heavy modules that are imported on first use, so that listing the zoo stays instant."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import types
from collections.abc import Iterator
from typing import Any

from zoo.common.errors import MissingDependency


class LazyModule(types.ModuleType):
    """Stands for a module and imports it when an attribute is first asked for.

    Args:
        name: dotted name of the module.
        package: what to `pip install` if it is missing; the first part of `name` by default.
    """

    def __init__(self, name: str, package: str | None = None) -> None:
        super().__init__(name)
        self._package = package or name.partition(".")[0]

    def __getattr__(self, attribute: str) -> Any:
        # Copying and inspection probe for dunders; that is no use of the module.
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return getattr(self._load(), attribute)

    def _load(self) -> types.ModuleType:
        if self.__name__ in sys.modules:
            return sys.modules[self.__name__]
        try:
            with quiet_libraries():
                return importlib.import_module(self.__name__)
        except ModuleNotFoundError as error:
            # A module missing inside an installed package is a fault of that package, not a missing one.
            if error.name != self.__name__.partition(".")[0]:
                raise
            raise MissingDependency(
                f"This needs the package '{self._package}', which is not installed. Run: pip install {self._package}"
            ) from error


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep what native libraries print off standard error, if TF_CPP_MIN_LOG_LEVEL asks for quiet.

    TensorFlow obeys that variable only once it is loaded, LiteRT never. What fails still raises.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") < "3":
        yield
        return
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


keras = LazyModule("keras")
np = LazyModule("numpy")
tf = LazyModule("tensorflow")
hub = LazyModule("huggingface_hub")
tfds = LazyModule("tensorflow_datasets", "tensorflow-datasets")
