"""What is known to fail on the way to LiteRT."""

from __future__ import annotations

from collections.abc import Collection

from export.core.precheck import LISTS, Rule, lacking

OTHERS, BEFORE = "Compute it by other operators", "Compute spectra before the network"
# Erf is none of LiteRT's, which has GELU, of which it is a part.
LACKS = {
    "Erfinv": OTHERS,
    "MatrixDeterminant": OTHERS,
    "MatrixInverse": OTHERS,
    "Qr": OTHERS,
    "Svd": OTHERS,
    "FFT": BEFORE,
    "Complex": "Compute with real numbers",
}
# What has no kernel for integers.
LACKS_INTEGER = {
    LISTS: "Use tflite_dynamic",
    "Cumsum": "Use tflite_dynamic",
    "TopKV2": "Sort outside the network, or use tflite_dynamic",
    "Conv3D": "Use tflite_dynamic",
}


def rules_for(guarantees: Collection[str]) -> tuple[Rule, ...]:
    """Return the rules of a format by what it claims."""
    integer = (lacking(LACKS_INTEGER),) if "integer" in guarantees else ()
    return (lacking(LACKS, unless="flex"), *integer)
