"""The gate: an artifact in its real runtime against the model it came from, on real test examples."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export._format import Runtime, Tensor, Tolerance
from zoo._errors import ParityError
from zoo._lazy import np

if TYPE_CHECKING:
    import numpy as _np

# Examples that also go through a free batch one by one, and through a signature for encoded images.
SECOND = 32


@dataclasses.dataclass(frozen=True)
class Parity:
    """How an artifact compares with its source on `n` test examples.

    Args:
        n: examples compared.
        max: largest difference of a logit.
        mean: mean difference of the logits.
        relative: `max` as a share of the source's largest logit.
        agreement: share of examples with the same top-1.
        accuracy: the artifact's accuracy on them.
        source_accuracy: the source's.
        batches: batch sizes that were run.
        tolerance: what was allowed.
        passed: whether it kept to that.
    """

    n: int
    max: float
    mean: float
    relative: float
    agreement: float
    accuracy: float
    source_accuracy: float
    batches: tuple[int, ...]
    tolerance: Tolerance
    passed: bool

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON-safe values."""
        return dataclasses.asdict(self) | {"batches": list(self.batches)}


def read_samples(path: Path) -> dict[str, _np.ndarray]:
    """Return inputs as float32 raw values, labels and the source's logits."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in ("inputs", "labels", "logits")}
    return arrays | {"inputs": arrays["inputs"].astype("float32")}


def compare(
    runtime: Runtime, samples: dict[str, _np.ndarray], tolerance: Tolerance, expected: dict[str, Any]
) -> Parity:
    """Run an artifact on the samples and compare it with its source.

    Args:
        runtime: the artifact in its real runtime.
        samples: inputs (n, *shape), labels (n,), logits (n, classes).
        tolerance: how far it may be.
        expected: what the artifact must say of itself: the source's metadata.

    Returns:
        The figures; `passed` tells whether they are within the tolerance.

    Raises:
        ParityError: names, shapes or metadata are not the source's.
    """
    inputs, source = samples["inputs"], samples["logits"]
    _check_interface(runtime, samples, expected)
    # A third of the samples at a time is a batch that nobody compiled for, where the batch is free.
    sizes = [runtime.batch] if runtime.batch else [max(2, len(inputs) // 3), 1]
    logits = _in_batches(runtime, inputs, sizes[0])
    _check_shape(logits, source)
    others = [(_in_batches(runtime, inputs[:SECOND], size), source[:SECOND]) for size in sizes[1:]]
    encoded = _through_bytes(runtime, inputs[:SECOND])
    if encoded is not None:
        others.append((encoded, source[:SECOND]))
    difference = np.abs(logits - source)
    largest = float(np.max([difference.max(), *(np.abs(a - b).max() for a, b in others)]))
    return _judge(logits, samples, tolerance, largest, tuple(sizes), float(difference.mean()))


def _judge(
    logits: Any, samples: dict[str, Any], tolerance: Tolerance, largest: float, sizes: tuple[int, ...], mean: float
) -> Parity:
    """Put the figures together and hold them against the tolerance."""
    source, labels = samples["logits"], samples["labels"]
    top, source_top = logits.argmax(-1), source.argmax(-1)
    relative = largest / (float(np.abs(source).max()) + 1e-12)
    agreement, accuracy = float((top == source_top).mean()), float((top == labels).mean())
    source_accuracy = float((source_top == labels).mean())
    passed = (
        # A comparison with NaN is false, so that an artifact that yields it fails here.
        relative <= tolerance.relative
        and agreement >= tolerance.agreement
        and source_accuracy - accuracy <= tolerance.drop + 1e-9
    )
    return Parity(len(labels), largest, mean, relative, agreement, accuracy, source_accuracy, sizes, tolerance, passed)


def require(parity: Parity, what: str) -> None:
    """Raise ParityError with the figures unless the comparison passed."""
    if parity.passed:
        return
    t = parity.tolerance
    raise ParityError(
        f"{what} is not equal to its source on {parity.n} test examples: largest difference {parity.relative:.3g} of "
        f"the largest logit (allowed {t.relative:g}), same top-1 {parity.agreement:.4f} (at least {t.agreement:g}), "
        f"accuracy {parity.accuracy:.4f} against {parity.source_accuracy:.4f} (may lose {t.drop:g})"
    )


def _check_interface(runtime: Runtime, samples: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise ParityError if the artifact's names, shapes or metadata are not the source's."""
    found = [
        (runtime.inputs, expected["input"], samples["inputs"]),
        (runtime.outputs, expected["output"], samples["logits"]),
    ]
    for tensors, name, array in found:
        if [t.name for t in tensors] != [name]:
            raise ParityError(
                f"The artifact must have one tensor {name!r} there. Received: {[t.name for t in tensors]}"
            )
        _check_tensor(tensors[0], array.shape[1:], runtime.batch)
    if runtime.metadata != expected:
        raise ParityError(f"The artifact's own metadata must be its source's. Received: {str(runtime.metadata)[:200]}")


def _check_tensor(tensor: Tensor, shape: tuple[int, ...], batch: int | None) -> None:
    if tuple(tensor.shape) != (batch, *shape):
        raise ParityError(f"{tensor.name} must have the shape {(batch, *shape)}. Received: {tensor.shape}")


def _check_shape(logits: Any, source: Any) -> None:
    if logits.shape != source.shape or str(logits.dtype) != "float32":
        raise ParityError(
            f"Expected logits of shape {source.shape} in float32. Received: {logits.shape} in {logits.dtype}"
        )


def _in_batches(runtime: Runtime, inputs: Any, size: int) -> Any:
    """Run the inputs in batches of `size`."""
    return np.concatenate([runtime(inputs[i : i + size]) for i in range(0, len(inputs), size)])


def _through_bytes(runtime: Runtime, inputs: Any) -> Any:
    """Run the inputs as encoded PNGs where the artifact takes such; None where it does not."""
    if inputs.ndim != 4 or inputs.shape[-1] not in (1, 3, 4):
        return None
    return runtime.classify_bytes([encode_png(image) for image in inputs])


def encode_png(image: Any) -> bytes:
    """Return pixels (height, width, 1, 3 or 4) from 0 to 255 as a PNG, which loses nothing."""
    from PIL import Image

    file = io.BytesIO()
    pixels = image.astype("uint8")
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()
