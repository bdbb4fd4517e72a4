"""One JPEG has the same top-5 classes through every artifact, passed in the dtype that each takes."""

from __future__ import annotations

import io

import numpy as np
import pytest

import export
from export.core.format import formats
from export.core.manifest import SAMPLES
from export.core.samples import read_samples

NAMES = formats.names(exclude="their_*")


@pytest.fixture(scope="module")
def jpeg(artifacts, digits_run):
    """A JPEG, its pixels as the pipeline reads them, and the source's logits.

    Of the test images it has the largest gaps between the first six logits, so that rounding does not decide.
    """
    from PIL import Image

    import zoo
    from training.common.preprocess import decode
    from training.data.pipeline.opening import open_pipeline

    samples = read_samples(artifacts["saved_model"].folder / SAMPLES)
    best = np.sort(samples["logits"], axis=1)[:, ::-1]
    chosen = np.argmin(np.diff(best[:, :6]).max(axis=1))
    file = io.BytesIO()
    Image.fromarray(samples["inputs"][chosen].astype("uint8")[..., 0]).save(file, "JPEG", quality=95)
    pipeline = open_pipeline(digits_run.recipe, zoo.spec(digits_run.recipe.model.name))
    pixels = decode(file.getvalue(), pipeline.shape, pipeline.preprocessing).numpy()
    # Other decoders differ by a few levels of 255; the tests are about what comes after decoding.
    assert np.abs(pixels - samples["inputs"][chosen]).mean() < 5
    logits = export.load(artifacts["keras"].path)(pixels[None])[0]
    return file.getvalue(), pixels, logits


def top(logits):
    """The top-5 classes, the most likely one first."""
    return np.argsort(-logits)[:5].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_one_jpeg_gives_the_same_five(artifacts, jpeg, name):
    """The artifact takes pixels as floats or as bytes, and the file itself if it has a signature for it."""
    file, pixels, logits = jpeg
    runtime = export.load(artifacts[name].path)
    given = runtime.inputs[0].dtype
    assert given in ("float32", "uint8", "int8", "int16")
    assert top(runtime(pixels[None])[0]) == top(logits)
    through = runtime.classify_bytes([file])
    if through is not None:
        assert top(through[0]) == top(logits)
        # The artifact decodes as training does, to the level.
        np.testing.assert_allclose(through[0], logits, rtol=1e-4, atol=1e-4)


def test_uint8_gives_the_same_five(variants, jpeg):
    """The signature for uint8 takes bytes."""
    runtime = export.load(variants["saved_model:input=uint8"].path)
    assert runtime.inputs[0].dtype == "uint8"
    assert top(runtime(jpeg[1].astype("uint8")[None])[0]) == top(jpeg[2])


def test_another_image_gives_others(artifacts, jpeg):
    """The control: another image has other top-5 classes."""
    assert top(export.load(artifacts["onnx"].path)(255 - jpeg[1][None])[0]) != top(jpeg[2])
