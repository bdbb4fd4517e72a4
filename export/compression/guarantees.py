"""What a chain of compressions claims of an artifact, looked up in the artifact itself.

Claims are JSON: "zeros" (number of zeros by kernel), "pattern" ([n, m]: of each m neighbouring input channels n stay),
"distinct" (most different values in a kernel), "kernels" (shape by kernel).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.compression.masks import Pruning, kernels
from export.inspection.stored_weights import stored_weights
from zoo.common.errors import ExportError, ParityError
from zoo.common.lazy import np

if TYPE_CHECKING:
    import keras as _keras
    import numpy as _np


def masks_of(network: _keras.Model) -> dict[str, _np.ndarray]:
    """Return for each kernel of a network, by its path, which weights are not zero, bool in the kernel's shape."""
    return {variable.path: np.asarray(variable) != 0 for variable in kernels(network, Pruning(0.0))}


def count_zeros(network: _keras.Model) -> dict[str, int]:
    """Return how many zeros each kernel of a network has, by its path."""
    return {path: int(mask.size - mask.sum()) for path, mask in masks_of(network).items()}


def check_network(network: _keras.Model, guarantees: Mapping[str, Any]) -> None:
    """Raise ExportError unless a network holds what was claimed of zeros, which is exact."""
    found = count_zeros(network)
    wrong = {path: count for path, count in guarantees.get("zeros", {}).items() if found.get(path) != count}
    if wrong:
        path = next(iter(wrong))
        raise ExportError(f"{path} must have {wrong[path]} zeros after all steps. Received: zeros={found.get(path)}")


def inspect(path: Path, guarantees: Mapping[str, Any], masks: Mapping[str, _np.ndarray]) -> dict[str, Any] | None:
    """Compare claims with what an artifact stores.

    Float32 kernels must have exactly the zeros that are claimed, in the places where the compressed network has them;
    rounding to fewer bits may add zeros and must lose none.

    Args:
        path: the artifact.
        claims: see this module.
        masks: of the compressed network, see `masks_of`.

    Returns:
        What was found, in the words of the claims; None if this kind of file cannot be read.

    Raises:
        ParityError: the artifact is not what is claimed.
    """
    stored = stored_weights(path)
    if stored is None:
        return None
    found: dict[str, Any] = {}
    if "kernels" in guarantees:
        found["kernels"] = {name: list(_stored(stored, name, m)[0].shape) for name, m in masks.items()}
        _check(guarantees["kernels"], {name: list(m.shape) for name, m in masks.items()}, "shape")
    if "zeros" in guarantees:
        found["zeros"] = {name: _zeros(stored, name, masks[name], n) for name, n in guarantees["zeros"].items()}
    if "pattern" in guarantees:
        for name in guarantees["zeros"]:
            _check_pattern(_same_zeros(stored, name, masks[name]), name, *guarantees["pattern"])
        found["pattern"] = guarantees["pattern"]
    if "distinct" in guarantees:
        found["distinct"] = {name: _distinct(stored, name, masks[name], guarantees["distinct"]) for name in masks}
    return found


def _check(claimed: Mapping[str, Any], found: Mapping[str, Any], what: str) -> None:
    for name, value in claimed.items():
        if found.get(name) != value:
            raise ParityError(f"The {what} of {name} is claimed to be {value}. Received: {found.get(name)}")


def _shapes(mask: Any) -> list[Any]:
    """Return a mask in the shapes that it may be stored in: kernels of attention become matrices."""
    if mask.ndim != 3:
        return [mask]
    return [mask, mask.reshape(len(mask), -1), mask.reshape(-1, mask.shape[-1])]


def _stored(stored: list[Any], name: str, mask: Any) -> list[Any]:
    """Return the stored arrays that have the shape of a kernel, at least one."""
    shapes = {shape.shape for shape in _shapes(mask)}
    found = [array for array in stored if array.shape in shapes]
    if not found:
        raise ParityError(f"The artifact has no weights of the shape of {name}. Received: {mask.shape}")
    return found


def _same_zeros(stored: list[Any], name: str, mask: Any) -> Any:
    """Return the stored kernel that has the zeros of a mask, or raise ParityError."""
    alike = _stored(stored, name, mask)
    for array in alike:
        kept = next(m for m in _shapes(mask) if m.shape == array.shape)
        exact = array.dtype == np.float32
        if not array[~kept].any() and (not exact or (array != 0).sum() == kept.sum()):
            return array
    counts = sorted({int((array == 0).sum()) for array in alike})
    raise ParityError(
        f"{name} is claimed to have {int((~mask).sum())} zeros of {mask.size} at the places of the compressed network. "
        f"Received: weights of its shape with {', '.join(map(str, counts))} zeros"
    )


def _zeros(stored: list[Any], name: str, mask: Any, claimed: int) -> int:
    """Return how many zeros a kernel has in the artifact."""
    if int((~mask).sum()) != claimed:
        raise ParityError(f"{name} is claimed to have {claimed} zeros. Received: {int((~mask).sum())} in the network")
    return int((_same_zeros(stored, name, mask) == 0).sum())


def _check_pattern(kernel: Any, name: str, n: int, m: int) -> None:
    """Raise ParityError unless of each m neighbouring input channels at most n are not zero."""
    groups = np.moveaxis(kernel, -2, -1).reshape(-1, m)
    if ((groups != 0).sum(1) > n).any():
        raise ParityError(f"{name} is claimed to keep {n} of each {m} input channels. Received: more in the artifact")


def _distinct(stored: list[Any], name: str, mask: Any, most: int) -> int:
    """Return how many values a kernel has; integers, which have a scale for each output channel, by channel."""
    counts = []
    for array in _stored(stored, name, mask):
        # NumPy 2.4 sorts float16 wrongly on processors with AVX-512 for it, so that equal values count several times.
        parts = [array.astype("float32")] if array.dtype.kind == "f" else list(np.moveaxis(array, -1, 0))
        counts.append(max(len(np.unique(part)) for part in parts))
    if min(counts) > most:
        raise ParityError(f"{name} is claimed to have at most {most} values. Received: {min(counts)} in the artifact")
    return min(counts)
