"""RandAugment and TrivialAugment: the operations and ranges of torchvision, and how many are drawn."""

from __future__ import annotations

import numpy as np
import pytest
from augment_images import SEED, batch, each, floats, pillow
from PIL import Image, ImageEnhance, ImageOps

from training import AugmentConfig
from training.augment.policies import OPERATIONS, RAND, WIDE, rand_augment, trivial_augment


def apply(name, images, fraction, ranges=RAND):
    """Apply an operation of the policies to images."""
    return np.asarray(OPERATIONS[name](floats(images), each(fraction, len(images)), ranges, "constant"))


def affine(image, data):
    """Return an image after Pillow's affine transform."""
    return image.transform(image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)


@pytest.mark.parametrize("fraction", [-1.0, -0.4, 0.3, 1.0])
@pytest.mark.parametrize("name", ["shear_x", "shear_y"])
def test_shears_are_those_of_pillow(name, fraction):
    """A shear is AutoAugment's: around the upper left corner, by a fraction of the range."""
    images, by = batch(), fraction * 0.3
    wanted = pillow(
        lambda image: affine(image, (1, by, 0, 0, 1, 0) if name == "shear_x" else (1, 0, 0, by, 1, 0)), images
    )
    found = apply(name, images, fraction)
    inner = (slice(None), slice(14, -14), slice(14, -14))
    assert np.abs(found[inner] - wanted[inner]).max() <= 1.5
    assert np.abs(found - images).mean() > 3


@pytest.mark.parametrize(("fraction", "ranges"), [(0.9, RAND), (-0.5, RAND), (0.5, WIDE), (-0.2, WIDE)])
@pytest.mark.parametrize("axis", [1, 2])
def test_translations_are_whole_pixels(axis, fraction, ranges):
    """A translation is by 150/331 of the side, or by 32 pixels, and fills with zeros."""
    images = batch()
    far = 32 if ranges is WIDE else 150 / 331 * images.shape[axis]
    by = int(fraction * far)
    wanted = np.zeros_like(images)
    to, of = (slice(by, None), slice(None, -by)) if by > 0 else (slice(None, by), slice(-by, None))
    place = [slice(None)] * 4
    source = list(place)
    place[axis], source[axis] = to, of
    wanted[tuple(place)] = images[tuple(source)]
    np.testing.assert_array_equal(
        apply("translate_x" if axis == 2 else "translate_y", images, fraction, ranges), wanted
    )


@pytest.mark.parametrize(("fraction", "ranges", "degrees"), [(0.5, RAND, 15), (-1.0, RAND, -30), (0.4, WIDE, 54)])
def test_rotation_is_that_of_pillow(fraction, ranges, degrees):
    """A rotation is around the center, in Pillow's direction."""
    images = batch(height=51, width=51)
    found = apply("rotate", images, fraction, ranges)
    wanted = pillow(lambda image: image.rotate(degrees, Image.Resampling.BILINEAR), images)
    inner = (slice(None), slice(12, -12), slice(12, -12))
    assert np.abs(found[inner] - wanted[inner]).max() <= 1.5


@pytest.mark.parametrize(("name", "fraction", "ranges", "wanted"), [
    ("posterize", 1.0, RAND, lambda i: ImageOps.posterize(i, 4)),
    ("posterize", -0.5, RAND, lambda i: ImageOps.posterize(i, 6)),
    ("posterize", 1.0, WIDE, lambda i: ImageOps.posterize(i, 2)),
    ("solarize", 0.6, RAND, lambda i: ImageOps.solarize(i, 102)),
    ("autocontrast", 0.1, RAND, ImageOps.autocontrast),
    ("equalize", 0.1, RAND, ImageOps.equalize),
    ("identity", 1.0, RAND, lambda i: i),
    ("brightness", -0.5, RAND, lambda i: ImageEnhance.Brightness(i).enhance(0.55)),
    ("color", 1.0, RAND, lambda i: ImageEnhance.Color(i).enhance(1.9)),
    ("contrast", -1.0, WIDE, lambda i: ImageEnhance.Contrast(i).enhance(0.01)),
    ("sharpness", 1.0, WIDE, lambda i: ImageEnhance.Sharpness(i).enhance(1.99)),
])  # fmt: skip
def test_ranges_are_those_of_torchvision(name, fraction, ranges, wanted):
    """A fraction of full strength means the same as in torchvision's RandAugment and TrivialAugmentWide."""
    images = batch()
    assert np.abs(apply(name, images, fraction, ranges) - pillow(wanted, images)).max() <= 2.01


def test_policies_are_torchvisions_fourteen_operations():
    """All fourteen are there, and each image gets the output of the operation drawn for it."""
    assert len(OPERATIONS) == 14
    images = np.repeat(batch(1), 280, axis=0)
    config = AugmentConfig(rand_augment=1, magnitude=5)
    found = rand_augment(floats(images), config, SEED).numpy()
    known = [apply(name, images[:1], fraction)[0] for name in OPERATIONS for fraction in (-0.5, 0.5)]
    nearest = [min(range(len(known)), key=lambda k: np.abs(known[k] - image).max()) for image in found]
    assert max(np.abs(known[k] - image).max() for k, image in zip(nearest, found, strict=True)) < 1e-2
    drawn = {k // 2 for k in nearest}
    # Operations with equal results on this image count under the first name.
    assert len(drawn) >= 13
    counts = np.bincount([k // 2 for k in nearest], minlength=14)
    assert counts.max() < 60


def test_rand_augment_applies_as_many_as_asked():
    """Two operations change more images than one does; zero operations change none."""
    images = floats(batch(60))
    changed = [
        np.mean([np.abs(a - b).max() > 0.5 for a, b in zip(rand_augment(images, config, SEED), images, strict=True)])
        for config in (AugmentConfig(rand_augment=n) for n in (1, 2, 4))
    ]
    assert changed[0] < changed[1] <= changed[2]
    assert 0.75 < changed[0] < 1


def test_trivial_augment_draws_strengths_from_none_to_full():
    """The brightness of a constant image shows the drawn strength: one of 31, up to 0.99."""
    images = np.full((1500, 5, 5, 1), 100.0, "float32")
    middle = trivial_augment(images, AugmentConfig(trivial_augment=True), SEED).numpy()[:, 2, 2, 0]
    # Only solarization, which inverts it, also makes it brighter.
    found = {round(float(value), 1) for value in middle if value > 100.01} - {155.0}
    steps = {round(100 * (1 + 0.99 * i / 30), 1) for i in range(1, 31)}
    assert found <= steps
    assert len(found) > 20
    assert max(found) == 199.0


@pytest.mark.parametrize("policy", [rand_augment, trivial_augment])
def test_policies_take_gray_images(policy):
    """Images of one channel keep their shape and range."""
    images = floats(batch(32, channels=1))
    found = policy(images, AugmentConfig(rand_augment=2, trivial_augment=True), SEED).numpy()
    assert found.shape == images.shape
    assert found.min() >= 0
    assert found.max() <= 255
    assert not np.array_equal(found, images)
