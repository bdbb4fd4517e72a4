"""Models that LiteRT cannot represent."""

from __future__ import annotations

from collections.abc import Collection

from export.core.precheck import TENSOR_LIST, UNROLLED, Rule, without_operators

OTHERS, BEFORE = "Compute it with other operators", "Compute spectra before the model"
# Erf is not here: LiteRT has no Erf but GELU, which contains it.
UNSUPPORTED = {
    "Erfinv": OTHERS,
    "MatrixDeterminant": OTHERS,
    "MatrixInverse": OTHERS,
    "Qr": OTHERS,
    "Svd": OTHERS,
    "FFT": BEFORE,
    "Complex": "Compute with real numbers",
}
# Operators without integer kernels.
UNSUPPORTED_INTEGER = {
    TENSOR_LIST: f"{UNROLLED}, or tflite_dynamic",
    "Cumsum": "Use tflite_dynamic",
    "TopKV2": "Sort outside the model, or use tflite_dynamic",
    "Conv3D": "Use tflite_dynamic",
}


def rules_for(guarantees: Collection[str]) -> tuple[Rule, ...]:
    """Return the rules of a format with these guarantees."""
    integer = (without_operators(UNSUPPORTED_INTEGER),) if "integer" in guarantees else ()
    return (without_operators(UNSUPPORTED, unless="flex"), *integer)
