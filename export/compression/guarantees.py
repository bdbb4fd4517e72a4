"""The guarantees of a compression pipeline, checked in the artifact's file.

Guarantees are JSON: "zeros" (number of zeros by kernel), "pattern" ([n, m]: n of each m consecutive input channels are
kept), "distinct" (maximum number of distinct values in a kernel), "kernels" (shape by kernel).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.compression.pruning import Pruning, prunable_kernels
from export.inspection.stored_weights import stored_weights
from zoo.common.errors import ExportError, ParityError
from zoo.common.lazy import np

if TYPE_CHECKING:
    import keras as _keras
    import numpy as _np

FACTS = "facts.json"  # written by a step that writes a format itself, next to the artifact


def nonzero_masks(model: _keras.Model) -> dict[str, _np.ndarray]:
    """Return which weights of each kernel are not zero, bool in the kernel's shape, by its path."""
    return {variable.path: np.asarray(variable) != 0 for variable in prunable_kernels(model, Pruning(0.0))}


def count_zeros(model: _keras.Model) -> dict[str, int]:
    """Return the number of zeros of each kernel of a model, by its path."""
    return {path: int(mask.size - mask.sum()) for path, mask in nonzero_masks(model).items()}


def check_model(model: _keras.Model, guarantees: Mapping[str, Any]) -> None:
    """Raise ExportError unless a model has exactly the guaranteed zeros."""
    found = count_zeros(model)
    wrong = {path: count for path, count in guarantees.get("zeros", {}).items() if found.get(path) != count}
    if wrong:
        path = next(iter(wrong))
        raise ExportError(f"{path} must have {wrong[path]} zeros after all steps. Received: zeros={found.get(path)}")


def check_artifact(
    path: Path, guarantees: Mapping[str, Any], masks: Mapping[str, _np.ndarray]
) -> dict[str, Any] | None:
    """Compare guarantees with the weights that an artifact stores.

    Float32 kernels must have exactly the guaranteed zeros at the positions of the compressed model; quantization to
    fewer bits may add zeros and must lose none.

    Args:
        path: the artifact.
        guarantees: see this module.
        masks: nonzero weights of the compressed model, see `nonzero_masks`.

    Returns:
        The values found, with the keys of the guarantees; None if this kind of file has no reader.

    Raises:
        ParityError: a guarantee does not hold.
    """
    stored = stored_weights(path)
    if stored is None:
        return None
    found: dict[str, Any] = {}
    if "kernels" in guarantees:
        found["kernels"] = {name: list(_candidates(stored, name, m)[0].shape) for name, m in masks.items()}
        _check_shapes(guarantees["kernels"], {name: list(m.shape) for name, m in masks.items()})
    if "zeros" in guarantees:
        found["zeros"] = {name: _zeros(stored, name, masks[name], n) for name, n in guarantees["zeros"].items()}
    if "pattern" in guarantees:
        for name in guarantees["zeros"]:
            _check_pattern(_kernel_with_zeros(stored, name, masks[name]), name, *guarantees["pattern"])
        found["pattern"] = guarantees["pattern"]
    if "distinct" in guarantees:
        found["distinct"] = {name: _distinct(stored, name, masks[name], guarantees["distinct"]) for name in masks}
    return found


def _check_shapes(guaranteed: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    for name, shape in guaranteed.items():
        if found.get(name) != shape:
            raise ParityError(f"{name} is guaranteed to have the shape {shape}. Received: shape={found.get(name)}")


def _stored_shapes(mask: Any) -> list[Any]:
    """Return a mask in each shape that a file may use: kernels of attention become matrices."""
    if mask.ndim != 3:
        return [mask]
    return [mask, mask.reshape(len(mask), -1), mask.reshape(-1, mask.shape[-1])]


def _candidates(stored: list[Any], name: str, mask: Any) -> list[Any]:
    """Return the stored arrays with the shape of a kernel, at least one."""
    shapes = {shape.shape for shape in _stored_shapes(mask)}
    arrays = [array for array in stored if array.shape in shapes]
    if not arrays:
        raise ParityError(f"Expected weights of {name} in the artifact. Received: none of the shape {mask.shape}")
    return arrays


def _kernel_with_zeros(stored: list[Any], name: str, mask: Any) -> Any:
    """Return the stored kernel with the zeros of a mask; raise ParityError without one."""
    candidates = _candidates(stored, name, mask)
    for array in candidates:
        nonzero = next(m for m in _stored_shapes(mask) if m.shape == array.shape)
        exact = array.dtype == np.float32
        if not array[~nonzero].any() and (not exact or (array != 0).sum() == nonzero.sum()):
            return array
    counts = sorted({int((array == 0).sum()) for array in candidates})
    raise ParityError(
        f"{name} is guaranteed to have {int((~mask).sum())} zeros of {mask.size}, at the positions of the compressed "
        f"model. Received: weights of its shape with {', '.join(map(str, counts))} zeros"
    )


def _zeros(stored: list[Any], name: str, mask: Any, guaranteed: int) -> int:
    """Return the number of zeros of a kernel in the artifact."""
    if int((~mask).sum()) != guaranteed:
        raise ParityError(
            f"{name} is guaranteed to have {guaranteed} zeros. Received: {int((~mask).sum())} in the compressed model"
        )
    return int((_kernel_with_zeros(stored, name, mask) == 0).sum())


def _check_pattern(kernel: Any, name: str, n: int, m: int) -> None:
    """Raise ParityError if more than n of each m consecutive input channels are not zero."""
    groups = np.moveaxis(kernel, -2, -1).reshape(-1, m)
    if ((groups != 0).sum(1) > n).any():
        raise ParityError(
            f"{name} is guaranteed to keep {n} of each {m} input channels. Received: more in the artifact"
        )


def _distinct(stored: list[Any], name: str, mask: Any, most: int) -> int:
    """Return the number of distinct values of a kernel; for integers, which have a scale per channel, by channel."""
    counts = []
    for array in _candidates(stored, name, mask):
        # NumPy 2.4 sorts float16 wrongly with AVX-512, so that equal values would count several times.
        parts = [array.astype("float32")] if array.dtype.kind == "f" else list(np.moveaxis(array, -1, 0))
        counts.append(max(len(np.unique(part)) for part in parts))
    if min(counts) > most:
        raise ParityError(
            f"{name} is guaranteed to have at most {most} values. Received: {min(counts)} in the artifact"
        )
    return min(counts)
