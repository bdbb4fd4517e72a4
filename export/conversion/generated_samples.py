"""Samples of an export that keeps its data private: generated inputs, and the outputs of the artifact for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from export.core.generate import Generator
from export.core.runtime import Runtime
from export.core.samples import take_examples
from zoo.common.lazy import np

if TYPE_CHECKING:
    import numpy as _np

COUNT, SEED = 16, 0
# Larger floating-point numbers are all whole ones, and beyond those of a random generator.
WHOLE = 1 << 53
# What `zoo verify` can still prove.
MEANING = (
    "Private: verify proves that an artifact is unchanged and computes what it did when it was exported, on generated "
    "inputs. That this is what the source model computes was compared at the export, on data that is not in it."
)


def generate_samples(samples: dict[str, Any], runtime: Runtime) -> dict[str, Any]:
    """Return samples without a value of the data: seeded noise in the range of the inputs, and the artifact's outputs.

    Args:
        samples: those that the artifact was compared on, see `export.source.run_source.open_run_source`.
        runtime: the artifact in its runtime.
    """
    random, chosen = np.random.default_rng(SEED), take_examples(samples["inputs"], COUNT)
    if isinstance(chosen, dict):
        inputs: Any = {name: _noise(values, random) for name, values in chosen.items()}
    else:
        inputs = _noise(chosen, random)
    found = {"inputs": inputs, "logits": runtime(inputs)}
    if isinstance(runtime, Generator):
        found["tokens"] = runtime.generate(inputs["source"])
    return found


def _noise(values: _np.ndarray, random: Any) -> _np.ndarray:
    """Return uniform noise of the shape and type of an array, whole numbers if it has no others."""
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0, 1)
    if max(abs(low), abs(high)) <= WHOLE and np.array_equal(finite, np.round(finite)):
        return random.integers(int(low), int(high), values.shape, endpoint=True).astype(values.dtype)
    return random.uniform(low, high, values.shape).astype(values.dtype)
