"""Flips and shifts are exact; rotations, zooms and what fills the edges are those of SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from training import AugmentConfig
from training.augment.affine import _draw
from training.augment.augment import augment


@pytest.mark.parametrize("size", [(6, 5), (8, 8)])
def test_flip_mirrors_about_half(size):
    """Each image is unchanged or its exact mirror image, about half each."""
    images = np.random.default_rng(0).uniform(0, 255, (400, *size, 2)).astype("float32")
    found = np.asarray(augment(images, AugmentConfig(flip=True), [1, 2]))
    unchanged = np.array([np.array_equal(a, b) for a, b in zip(found, images, strict=True)])
    np.testing.assert_array_equal(found[~unchanged], images[~unchanged][:, :, ::-1])
    assert 0.4 < unchanged.mean() < 0.6


def test_shift_moves_by_whole_pixels():
    """A shift is an exact translation within its limit, in both directions, filled with zeros."""
    images = np.random.default_rng(0).uniform(1, 255, (60, 10, 20, 1)).astype("float32")
    found = np.asarray(augment(images, AugmentConfig(shift=0.2), [1, 2]))
    seen = set()
    for image, moved in zip(images, found, strict=True):
        shifts = [(d, r) for d in range(-2, 3) for r in range(-4, 5)]
        fitting = [s for s in shifts if np.array_equal(ndimage.shift(image, (*s, 0), order=0), moved)]
        assert len(fitting) == 1
        seen.add(fitting[0])
    for axis, far in ((0, 2), (1, 4)):
        has_affine = {shift[axis] for shift in seen}
        assert (min(has_affine), max(has_affine)) == (-far, far)


def smooth(size=33):
    """Return one smooth image with nothing at its edges."""
    spot = np.zeros((size, size))
    spot[8:12, 12:24] = 255
    spot[20:23, 15:18] = 128
    return ndimage.gaussian_filter(spot, 1.5).astype("float32")


def draw(config, seed, size=33):
    """Return radians, scale, down, right and mirror that `augment` draws for one image."""
    return [float(values[0]) for values in _draw(config, 1, size, size, seed)]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rotation_is_that_of_scipy(seed):
    """An image turns around its center by the drawn angle, as in scipy.ndimage."""
    config = AugmentConfig(rotate=40)
    angle = np.degrees(draw(config, [seed, 0])[0])
    assert 1 < abs(angle) <= 40
    found = np.asarray(augment(smooth()[None, :, :, None], config, [seed, 0]))[0, :, :, 0]
    wanted = ndimage.rotate(smooth(), angle, reshape=False, order=1)
    assert np.abs(found - wanted).max() < 3


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_zoom_is_that_of_scipy(seed):
    """An image is scaled around its center by the drawn scale."""
    config = AugmentConfig(zoom=0.3)
    scale = draw(config, [seed, 0])[1]
    assert 0.7 <= scale <= 1.3
    found = np.asarray(augment(smooth()[None, :, :, None], config, [seed, 0]))[0, :, :, 0]
    wanted = ndimage.affine_transform(smooth(), np.eye(2) / scale, offset=16 - 16 / scale, order=1)
    assert np.abs(found - wanted).max() < 3


@pytest.mark.parametrize(("fill", "mode"), [("constant", "constant"), ("nearest", "nearest"), ("reflect", "reflect")])
def test_fill_is_what_comes_in_at_the_edges(fill, mode):
    """Zeros, the nearest pixel or the mirror image fill the edges, as in scipy.ndimage."""
    config = AugmentConfig(shift=0.4, fill=fill)
    image = np.random.default_rng(0).uniform(1, 255, (9, 9)).astype("float32")
    down, right = (round(v) for v in draw(config, [5, 1], 9)[2:4])
    assert (down, right) != (0, 0)
    found = np.asarray(augment(image[None, :, :, None], config, [5, 1]))[0, :, :, 0]
    # A map from output to input pixels: "down" moves the content of the image up.
    np.testing.assert_allclose(found, ndimage.shift(image, (-down, -right), order=0, mode=mode))
