"""A frame around an image is what preprocessing cuts off again, in encoded bytes too."""

from __future__ import annotations

import numpy as np
import pytest

from export.verification.encoded import encode_png, with_frame
from training.common.preprocess import decode
from zoo.specs.preprocessing import PreprocessingConfig


@pytest.mark.parametrize(("size", "crop"), [(224, 0.875), (299, 0.875), (240, 0.95), (380, 0.922), (16, 1.0)])
def test_a_frame_is_cut_off_again(size, crop):
    """With the frame, encoded bytes decode to the same pixels; without it, to their center."""
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3)).astype("float32")
    preprocessing = PreprocessingConfig((0.0,), (1.0,), interpolation="bicubic", crop=crop)
    np.testing.assert_array_equal(decode(encode_png(with_frame(image, crop)), image.shape, preprocessing), image)
    bare = decode(encode_png(image), image.shape, preprocessing)
    assert np.array_equal(bare, image) == (crop == 1.0)
