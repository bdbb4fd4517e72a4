"""All of augmentation: decided by its seed, options that draw apart, jitter and noise as asked, refused options."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from augment_images import SEED, batch
from scipy import stats

from training import AugmentConfig, DataConfig, Recipe
from training.augment import color
from training.augment.augment import augment, check_augment, is_active
from zoo.common.errors import BadOption

ALL = {
    "flip": True, "shift": 0.1, "rotate": 10.0, "zoom": 0.1, "pad_crop": 2, "crop_scale": (0.3, 1.0), "brightness": 0.3,
    "contrast": 0.3, "saturation": 0.3, "hue": 0.1, "noise": 0.05, "rand_augment": 2, "trivial_augment": True,
}  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_everything_is_decided_by_its_seed(name):
    """The same seed gives the same images, another seed other images; values stay between 0 and 255."""
    images, config = batch(8), AugmentConfig(**{name: ALL[name]})
    assert is_active(config)
    first, again, other = (np.asarray(augment(images, config, seed)) for seed in (SEED, SEED, [3, 5]))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (first.shape, first.dtype) == (images.shape, np.float32)
    assert first.min() >= 0
    assert first.max() <= 255.001


def test_enabling_one_option_leaves_the_others_unchanged():
    """Each option draws from its own seed: adding noise to a flip does not flip other images."""
    images = np.broadcast_to(np.arange(50, dtype="float32")[:, None] + 9, (64, 40, 50, 3))
    flipped = np.asarray(augment(images, AugmentConfig(flip=True), SEED))
    both = np.asarray(augment(images, AugmentConfig(flip=True, brightness=0.1), SEED))
    rising = [np.sign(x[:, -1].mean() - x[:, 0].mean()) for x in flipped]
    assert 16 < rising.count(1.0) < 48
    assert rising == [np.sign(x[:, -1].mean() - x[:, 0].mean()) for x in both]


@pytest.mark.parametrize("config", [AugmentConfig(), AugmentConfig(fill="reflect", magnitude=3.0, place="device")])
def test_settings_without_an_operation_change_nothing(config):
    """Options that only describe how an operation works do nothing on their own."""
    assert not is_active(config)
    np.testing.assert_array_equal(augment(batch(), config, SEED), batch())


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_jitter_is_uniform_within_its_bounds(name):
    """Factors are uniform in 1 ± the limit, turns of the hue in 0 ± the limit."""
    random = np.random.default_rng(0)
    images = np.repeat(random.integers(90, 140, (1, 8, 8, 3)), 3000, axis=0).astype("float32")
    if name == "hue":
        images = np.broadcast_to(np.float32([180, 60, 60]), images.shape)
    found = augment(images, AugmentConfig(**{name: 0.25}), SEED).numpy()
    if name == "hue":
        import tensorflow as tf

        hue = tf.image.rgb_to_hsv(found[:, 0, 0] / 255).numpy()[:, 0]
        drawn, bounds = (hue + 0.5) % 1 - 0.5, (-0.25, 0.25)
    else:
        spread = {
            "brightness": lambda x: x.mean((1, 2, 3)),
            "contrast": lambda x: color.to_grayscale(x).numpy().std((1, 2, 3)),
        }
        measure = spread.get(name, lambda x: (x - color.to_grayscale(x).numpy()).std((1, 2, 3)))
        drawn, bounds = measure(found) / measure(images), (0.75, 1.25)
    assert stats.kstest(drawn, "uniform", (bounds[0], bounds[1] - bounds[0])).pvalue > 0.01


def test_noise_is_gaussian():
    """The standard deviation is a fraction of 255 levels."""
    found = augment(np.full((4, 60, 60, 3), 128, "uint8"), AugmentConfig(noise=0.1), SEED).numpy()
    assert found.std() == pytest.approx(25.5, rel=0.02)
    assert stats.kstest((found.ravel()[:4000] - 128) / 25.5, "norm").pvalue > 0.01


def test_pad_crop_is_a_crop_of_the_padded_image():
    """Every offset occurs, and each image is an exact crop of the image padded with zeros."""
    images = np.repeat(batch(1, height=12, width=10), 400, axis=0) | 1
    found = np.asarray(augment(images, AugmentConfig(pad_crop=2), SEED))
    padded = np.pad(images[0], ((2, 2), (2, 2), (0, 0)))
    crops = {padded[y : y + 12, x : x + 10].astype("float32").tobytes(): (y, x) for y in range(5) for x in range(5)}
    # Padding may be a negative zero.
    offsets = [crops[(image + 0.0).tobytes()] for image in found]
    assert set(offsets) == set(itertools.product(range(5), range(5)))
    assert np.bincount([5 * y + x for y, x in offsets]).max() < 40


def checked(config, channels, task, batch_size):
    """Check the augmentation of a recipe for images and a task."""
    recipe = Recipe("test", data=DataConfig(batch_size=batch_size, augment=AugmentConfig(**config)))
    check_augment(recipe.data.augment, channels, task)


GOOD = {"channels": 3, "task": "classify", "batch_size": 64}


@pytest.mark.parametrize(("config", "place", "message"), [
    ({"crop_scale": (0.5,)}, {}, r"crop_scale must be \[smallest, largest\], above 0 and up to 1"),
    ({"crop_scale": (0.5, 1.5)}, {}, "crop_scale"),
    ({"crop_scale": (0.9, 0.5)}, {}, "crop_scale"),
    ({"crop_scale": (0.0, 0.5)}, {}, "crop_scale"),
    ({"crop_ratio": (2.0, 1.0)}, {}, "crop_ratio must be"),
    ({"crop_ratio": ()}, {}, "crop_ratio must be"),
    ({"saturation": 0.1}, {"channels": 1}, "applies to color images"),
    ({"hue": 0.1}, {"channels": 1}, "applies to color images"),
    ({"mixup": 0.2}, {"task": "regress"}, "mixes labels of classes.*'regress'"),
    ({"cutmix": 0.2}, {"task": "regress"}, "mixes labels of classes"),
    ({"repeats": 64}, {"batch_size": 60}, "repeats=64, data.batch_size=60"),
])  # fmt: skip
def test_what_cannot_apply_is_refused(config, place, message):
    """The message has one line with the expected and the received value; values that fit pass."""
    with pytest.raises(BadOption, match=message) as error:
        checked(config, **GOOD | place)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("config", [
    {}, {"crop_scale": (0.08, 1.0)}, {"crop_ratio": (1.0, 1.0)}, {"hue": 0.1, "saturation": 0.2}, {"repeats": 3},
    {"mixup": 0.2, "cutmix": 1.0},
])  # fmt: skip
def test_what_can_apply_passes(config):
    """The control: usual values pass."""
    checked(config, **GOOD)
