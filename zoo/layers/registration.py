"""Registration of the zoo's layers with Keras, at the moment Keras is imported.

Keras loads a `.keras` file with custom layers only if the layers' modules are imported. `import zoo` must not import
Keras, so it installs a finder that imports these modules right after Keras.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from zoo.common.lazy import quiet_libraries

FRAMEWORK = "keras"
MODULES = ("zoo.layers.core", "zoo.layers.sequence", "zoo.layers.tabular")
# Modules that import Keras themselves.
IMPORTERS = {
    f"zoo.layers.{name}"
    for name in ("convolution", "dense", "initializers", "normalization", "saving", "sequence", "tabular")
}


def register_with_keras() -> None:
    """Import the modules of the layers now if Keras is imported, else right after Keras is imported."""
    if FRAMEWORK in sys.modules:
        _import_layers()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _import_layers() -> None:
    """Import the modules, unless one of the layers' modules imports Keras and is half imported itself."""
    if not IMPORTERS & sys.modules.keys():
        for module in MODULES:
            importlib.import_module(module)


class _Finder:
    """Meta path finder of Keras: finds it as the other finders do, and adds the layers to its import."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return the spec of Keras with a loader that imports the layers too; None for every other module."""
        if name != FRAMEWORK:
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self)
        return spec


class _Loader:
    """Loader that imports the zoo's layers after its module.

    Args:
        loader: the module's own loader.
        finder: the finder to remove after the import.
    """

    def __init__(self, loader: Any, finder: _Finder) -> None:
        self._loader, self._finder = loader, finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: Any) -> Any:
        """Return the module of the module's own loader."""
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        """Execute the module with its own loader, then import the layers."""
        module.__loader__ = module.__spec__.loader = self._loader
        # A module of layers may be the first to import Keras, and with it TensorFlow.
        with quiet_libraries():
            self._loader.exec_module(module)
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        _import_layers()
