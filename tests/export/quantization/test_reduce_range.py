"""The option `reduce_range`: weights of 7 bits, for processors whose 8-bit products saturate."""

from __future__ import annotations

import numpy as np
import pytest

from export.core.format import parse_format
from export.inspection.stored_weights import stored_weights
from export.quantization.options import QuantizationOptions
from zoo.common.errors import BadOption


def largest_code(source, text):
    """The largest int8 weight in the 1x1 convolution or the dense layer of an artifact."""
    request = parse_format(text)
    arrays = stored_weights(source.artifact_path(request.format.name, request.options))
    shapes = [(1, 1, 8, 8), (8, 4)]
    return max(int(np.abs(a.astype("int32")).max()) for a in arrays if a.dtype == np.int8 and a.shape in shapes)


@pytest.mark.parametrize("name", ["onnx_int8", "onnx_dynamic", "openvino_int8"])
def test_weights_have_seven_bits(name, source):
    """Codes up to 64 with it, up to 127 without."""
    assert largest_code(source, f"{name}:reduce_range=true") in (63, 64)
    assert largest_code(source, name) == 127


@pytest.mark.parametrize("name", ["onnx_int8", "openvino_int8"])
def test_learned_rounding_has_eight_bits(name):
    """The two together are refused; each alone is not."""
    metadata = {"task": "classify"}
    with pytest.raises(BadOption, match="rounding=learned needs all 8 bits"):
        parse_format(f"{name}:reduce_range=true,rounding=learned").options.check(metadata)
    for option in ("reduce_range=true", "rounding=learned"):
        parse_format(f"{name}:{option}").options.check(metadata)


def test_calibration_of_sequences_is_refused():
    """Their parts have several inputs and outputs."""
    with pytest.raises(BadOption, match="calibration and exclude do not apply to sequence-to-sequence models"):
        QuantizationOptions(calibration="mse").check({"task": "generate"})
    QuantizationOptions(rounding="learned").check({"task": "generate"})
