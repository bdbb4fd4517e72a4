"""The registry of datasets, and whether a name can be one, without TensorFlow."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import Any

from zoo.common.lazy import tfds
from zoo.specs.registry import Registry

# Functions from a DataConfig to a Dataset.
datasets: Registry[Any] = Registry("dataset", "training.datasets", "zoo.datasets")


def is_dataset(name: str) -> bool:
    """Return whether a dataset of this name is registered, or TFDS may have one: in its code or prepared on disk.

    TFDS is not imported for that, as it needs seconds and TensorFlow.
    """
    if name in datasets:
        return True
    base = re.split(r"[/:]", name)[0]
    # "huggingface:NAME" and other namespaces are resolved online.
    return re.fullmatch(r"\w+:[^\d].*", name) is not None or _is_in_tfds(base) or _is_prepared(base)


def _is_in_tfds(name: str) -> bool:
    """Return whether the installed TFDS has a dataset of this name, or a program has registered one there."""
    return name in _scanned_names() or ("tensorflow_datasets" in sys.modules and name in tfds.list_builders())


@functools.cache
def _scanned_names() -> frozenset[str]:
    """Return the names of the datasets in the installed TFDS, read from its files."""
    spec = importlib.util.find_spec("tensorflow_datasets")
    if spec is None or not spec.origin:
        return frozenset()
    root = Path(spec.origin).parent
    found = {path.name for path in (root / "datasets").iterdir() if path.is_dir()}
    for path in root.rglob("*.py"):
        found |= {_snake_case(name) for name in re.findall(r"^class (\w+)\(", path.read_text("utf-8"), re.MULTILINE)}
    return frozenset(found)


def _snake_case(name: str) -> str:
    """Return the name of a builder's class as TFDS registers it."""
    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()


def _is_prepared(name: str) -> bool:
    """Return whether the default folder of TFDS has a dataset of this name."""
    root = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    return bool(re.fullmatch(r"\w+", name)) and (root / name).is_dir()
