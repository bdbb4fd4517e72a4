"""Whether a source model can be compared with at all: outputs that say nothing agree with those of any artifact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from export.verification.measures import measure_of
from zoo.common.errors import ParityError
from zoo.common.lazy import np

if TYPE_CHECKING:
    import keras as _keras
    import numpy as _np

# The change of outputs between examples, as a fraction of the largest one, that float32 does not resolve.
CONSTANT = 1e-6
ADVICE = "Train the model, restore its weights, or compare it on other examples (calibration)."


class Constant(ParityError):
    """An output that is the same for all examples."""


def valid_rows(samples: Mapping[str, Any], task: str) -> Any:
    """Return which predictions of samples with one output are compared, bool (n, ...)."""
    if "labels" in samples:
        return measure_of(task).labeled(samples["labels"])
    return samples.get("valid", np.ones(samples["logits"].shape[:-1], bool))


def check_samples(samples: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Raise ParityError if an output of a source model cannot be told from that of a broken artifact.

    Args:
        samples: see `export.source.run_source.open_run_source`.
        metadata: the source model's.
    """
    task = metadata.get("task", "classify")
    if "outputs" not in metadata:
        check_outputs(samples["logits"][valid_rows(samples, task)], task)
    constant = []
    for output in metadata.get("outputs", ()):
        try:
            check_outputs(samples["logits"][output["name"]], output["task"], output["name"])
        except Constant as error:
            constant.append(error)
    # One output of several may be saturated: it is compared too, and the others say more.
    if constant and len(constant) == len(metadata["outputs"]):
        raise constant[0]


def check_outputs(outputs: _np.ndarray, task: str, name: str = "") -> None:
    """Raise ParityError if the outputs of a source model cannot be told from those of a broken artifact.

    Args:
        outputs: (n, ...) on the examples that artifacts are compared on.
        task: see `export.source.source.SourceModel`.
        name: of one of several outputs.
    """
    values = np.asarray(outputs, "float64")
    if not np.isfinite(values).all():
        count = int(np.count_nonzero(~np.isfinite(values).reshape(len(values), -1).all(1)))
        raise _incomparable(f"NaN or infinity on {count} of {len(values)} examples", name)
    largest = float(np.abs(values).max(initial=0.0))
    if largest < measure_of(task).vanishing:
        raise _incomparable(f"vanishing ones, the largest of which is {largest:.3g}", name)
    if len(values) > 1 and np.ptp(values, axis=0).max() <= CONSTANT * largest:
        raise _incomparable(f"the same ones for all {len(values)} examples", name, Constant)


def _incomparable(received: str, name: str, kind: type[ParityError] = ParityError) -> ParityError:
    where = f" in {name!r}" if name else ""
    return kind(f"Artifacts are compared by the outputs of the source model. Received: {received}{where}. {ADVICE}")


def check_weights(model: _keras.Model) -> None:
    """Raise ParityError if a weight of a model is not finite, or all kernels are zero."""
    zeros: list[bool] = []
    for weight in model.weights:
        values = np.asarray(weight)
        if values.dtype.kind != "f" and str(values.dtype) != "bfloat16":
            continue
        if not np.isfinite(values).all():
            raise _broken(f"NaN or infinity in {weight.path}")
        if values.ndim > 1:
            zeros.append(not values.any())
    if zeros and all(zeros):
        raise _broken("only zeros in all kernels")


def _broken(received: str) -> ParityError:
    return ParityError(
        f"An artifact is made of weights that were trained. Received: {received}. Restore the weights or train again."
    )


def relative_error(worst: Any, scale: Any) -> float:
    """Return the largest error as a fraction of the scale of its output.

    Args:
        worst: the largest error of each output (outputs,).
        scale: the scale of all outputs, or of each of them (outputs,).
    """
    return float(np.max(np.asarray(worst, "float64") / scale))
