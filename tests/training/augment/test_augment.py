"""Augmentation: operations equal Pillow's or NumPy's, draws follow their distributions, bad options are refused."""

from __future__ import annotations

import io
import itertools
import math

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from scipy import stats

from training import AugmentConfig, DataConfig, Recipe
from training.augment import color
from training.augment.augment import augment, augment_normalized, check_augment, is_active
from training.augment.crop import TRIES, boxes, crop_batch, crop_encoded, draw_crops
from training.augment.mixing import beta, erase, mix
from training.augment.policies import OPERATIONS, RAND, WIDE, rand_augment, trivial_augment
from zoo import PreprocessingConfig
from zoo.common.errors import BadOption

SEED = [3, 4]


def photo(seed=0, height=40, width=50, channels=3):
    """Return a smooth image with a little noise, uint8 (height, width, channels)."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (5, 6, channels)).astype("uint8").squeeze())
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), "float64").reshape(height, width, -1)
    return np.clip(smooth + random.normal(0, 3, smooth.shape), 0, 255).astype("uint8")


def batch(count=4, **sizes):
    """Return a batch of such images."""
    return np.stack([photo(seed, **sizes) for seed in range(count)])


def floats(images):
    """Return images in the dtype that operations take."""
    return images.astype("float32")


def pillow(change, images):
    """Apply a function of Pillow images to each image."""
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in images]).astype("float64")


def each(value, count=4):
    """Return the same value for each image of a batch."""
    return np.full(count, value, "float32")


ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "saturation": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "sharpness": ImageEnhance.Sharpness,
}


@pytest.mark.parametrize("factor", [0.1, 0.7, 1.0, 1.4, 1.9])
@pytest.mark.parametrize("name", ENHANCERS)
def test_enhancements_are_those_of_pillow(name, factor):
    """Brightness, color, contrast and sharpness equal Pillow's, without its truncation to integers."""
    images = batch()
    found = getattr(color, name)(floats(images), each(factor)).numpy()
    wanted = pillow(lambda image: ENHANCERS[name](image).enhance(factor), images)
    assert np.abs(found - wanted).max() <= 2.01
    assert np.abs(found - wanted).mean() < 1
    assert (factor == 1.0) == (np.abs(found - images).max() < 1e-3)


def test_each_image_has_a_factor_of_its_own():
    """Each image of a batch with different factors equals the image processed alone."""
    images, factors = floats(batch()), np.array([0.2, 0.6, 1.3, 1.8], "float32")
    for name in ENHANCERS:
        found = getattr(color, name)(images, factors).numpy()
        for i in range(4):
            alone = getattr(color, name)(images[i : i + 1], factors[i : i + 1]).numpy()
            np.testing.assert_allclose(found[i], alone[0], atol=1e-3)


def test_smoothing_is_that_of_pillow():
    """With a factor of 0, sharpness is Pillow's SMOOTH filter; the border is unchanged."""
    images = batch()
    found = color.sharpness(floats(images), each(0.0)).numpy()
    assert np.abs(found - pillow(lambda image: image.filter(ImageFilter.SMOOTH), images)).max() <= 1
    np.testing.assert_array_equal(found[:, 0], images[:, 0])


@pytest.mark.parametrize("bits", [2, 4, 5, 7, 8])
def test_posterize_is_that_of_pillow(bits):
    """Posterizing keeps exactly the highest bits."""
    images = batch()
    found = color.posterize(floats(images), each(bits)).numpy()
    np.testing.assert_array_equal(found, pillow(lambda image: ImageOps.posterize(image, bits), images))


@pytest.mark.parametrize("threshold", [0, 60, 128, 255, 256])
def test_solarize_is_that_of_pillow(threshold):
    """Solarizing inverts exactly the values from the threshold on."""
    images = batch()
    found = color.solarize(floats(images), each(threshold)).numpy()
    np.testing.assert_array_equal(found, pillow(lambda image: ImageOps.solarize(image, threshold), images))


def test_autocontrast_is_that_of_pillow():
    """Each channel is stretched to 0 to 255; a constant channel stays."""
    images = np.clip(batch() // 2 + 40, 50, 150).astype("uint8")
    images[0, :, :, 1] = 77
    found = color.autocontrast(floats(images)).numpy()
    assert np.abs(found - pillow(ImageOps.autocontrast, images)).max() <= 1
    np.testing.assert_array_equal(found[0, :, :, 1], 77)
    assert (found[1].min(), found[1].max()) == (0, 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_equalize_is_that_of_pillow(channels):
    """The histogram of each channel is equalized exactly, also in grayscale; a constant image stays."""
    images = batch(channels=channels)
    images[2] = 9
    found = color.equalize(floats(images)).numpy()
    wanted = pillow(ImageOps.equalize, images.squeeze(-1) if channels == 1 else images)
    np.testing.assert_array_equal(found, wanted.reshape(found.shape))


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.0, 0.25, 0.5])
def test_hue_is_that_of_colorsys(turn):
    """The hue turns while lightness and saturation stay, as in Python's colorsys."""
    import colorsys

    images = batch(1, height=5, width=6)
    found = color.shift_hue(floats(images), each(turn, 1)).numpy()[0]
    for y, x in itertools.product(range(5), range(6)):
        hue, saturation, value = colorsys.rgb_to_hsv(*(images[0, y, x] / 255))
        wanted = np.array(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)) * 255
        np.testing.assert_allclose(found[y, x], wanted, atol=0.05)


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


CROP = AugmentConfig(crop_scale=(0.08, 1.0))


def reference_crop(height, width, random, scale=(0.08, 1.0), ratio=(0.75, 4 / 3)):
    """Draw as torchvision's RandomResizedCrop.get_params does."""
    for _ in range(10):
        area = height * width * random.uniform(*scale)
        aspect = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return random.integers(0, height - h + 1), random.integers(0, width - w + 1), h, w
    if width / height < ratio[0]:
        w, h = width, round(width / ratio[0])
    elif width / height > ratio[1]:
        w, h = round(height * ratio[1]), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize("size", [(400, 500), (60, 300)])
def test_crops_are_distributed_as_those_of_torchvision(size):
    """Positions and sizes of crops follow the same distributions, which differ from those of another scale."""
    numbers, mirrored = draw_crops(3000, SEED)
    found = boxes(numbers, float(size[0]), float(size[1]), CROP).numpy()
    random = np.random.default_rng(0)
    wanted = np.array([reference_crop(*size, random) for _ in range(3000)])
    other = np.array([reference_crop(*size, random, scale=(0.2, 1.0)) for _ in range(3000)])
    assert all(stats.ks_2samp(found[:, i], wanted[:, i]).pvalue > 0.005 for i in range(4))
    assert stats.ks_2samp(found[:, 2], other[:, 2]).pvalue < 1e-6
    assert (found[:, :2] >= 0).all()
    assert (found[:, 0] + found[:, 2] <= size[0]).all()
    assert (found[:, 1] + found[:, 3] <= size[1]).all()
    assert 0.46 < mirrored.numpy().mean() < 0.54


@pytest.mark.parametrize(("size", "wanted"), [
    ((20, 1000), (0, 486, 20, 27)), ((1000, 20), (486, 0, 27, 20)), ((30, 30), (0, 0, 30, 30)),
])  # fmt: skip
def test_crop_falls_back_to_the_middle(size, wanted):
    """If ten tries do not fit, the crop is the largest centered one with an allowed ratio."""
    # The whole area at the extreme ratio never fits into these.
    numbers = np.ones((1, 4, TRIES), "float32")
    if size == (1000, 20):
        numbers[:, 1] = 0
    found = boxes(numbers, float(size[0]), float(size[1]), CROP).numpy()[0]
    assert tuple(found) == wanted


def encoded(image, kind="JPEG", **options):
    """Return an encoded image file as bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, kind, **options)
    return buffer.getvalue()


def numbers_for(seed):
    """Return the random numbers of one crop."""
    return draw_crops(1, [7, seed])[0][0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("channels", [1, 3])
def test_encoded_crop_is_the_crop_of_the_decoded_image(kind, channels):
    """Decoding a crop gives the pixels of that crop, resized as by TensorFlow, in every format, gray or color."""
    import tensorflow as tf

    content = encoded(photo(1, 100, 120), kind)
    whole = tf.io.decode_image(content, expand_animations=False).numpy().astype("float32")
    for seed in range(4):
        numbers = numbers_for(seed)
        found = (
            crop_encoded(content, numbers, (64, 64, channels), PreprocessingConfig(), CROP).numpy().astype("float32")
        )
        top, left, tall, wide = boxes(numbers, 100.0, 120.0, CROP).numpy()
        crop = whole[top : top + tall, left : left + wide]
        if channels == 1:
            crop = color.to_grayscale(crop[None]).numpy()[0]
        wanted = tf.image.resize(crop, (64, 64)).numpy()
        assert found.shape == (64, 64, channels)
        # A crop of a JPEG begins within a block of colors, which a full decode smooths across its edge.
        assert np.abs(found - wanted)[2:-2, 2:-2].mean() < (1.0 if kind == "JPEG" else 0.51)


@pytest.mark.parametrize("size", [(40, 40), (24, 30), (11, 11)])
def test_large_crops_are_shrunk_while_decoding(size):
    """The decoder shrinks a crop that is 2, 4 or 8 times too large, close to Pillow's antialiased resize."""
    image = np.asarray(Image.fromarray(photo(2, 90, 100)).resize((1000, 900), Image.Resampling.BICUBIC))
    image = np.clip(image + np.random.default_rng(0).normal(0, 20, image.shape), 0, 255).astype("uint8")
    content = encoded(image, quality=95)
    config = AugmentConfig(crop_scale=(0.8, 0.8), crop_ratio=(1.0, 1.0))
    numbers = numbers_for(1)
    top, left, tall, wide = boxes(numbers, 900.0, 1000.0, config).numpy()
    found = crop_encoded(content, numbers, (*size, 3), PreprocessingConfig(), config).numpy().astype("float64")
    crop = Image.open(io.BytesIO(content)).crop((left, top, left + wide, top + tall))
    wanted = np.asarray(crop.resize(size[::-1], Image.Resampling.BILINEAR), "float64")
    aliased = np.asarray(crop.resize(size[::-1], Image.Resampling.NEAREST), "float64")
    assert np.abs(found - wanted).mean() < 0.5 * np.abs(aliased - wanted).mean()


def test_crop_of_a_batch_is_the_crop_of_each():
    """Images with the final size are cropped as arrays, with the same boxes and the same resizing."""
    import tensorflow as tf

    images = floats(batch(6, height=32, width=32))
    found = crop_batch(images, CROP, SEED).numpy()
    crops = boxes(draw_crops(6, SEED)[0], 32.0, 32.0, CROP).numpy()
    for image, moved, (top, left, tall, wide) in zip(images, found, crops, strict=True):
        wanted = tf.image.resize(image[top : top + tall, left : left + wide], (32, 32)).numpy()
        # At the edge of the crop, but not of the image, resizing also sees the neighboring pixel.
        assert np.abs(moved - wanted)[3:-3, 3:-3].max() < 0.1


def test_erasing_is_distributed_as_asked():
    """The requested fraction of images loses a rectangle of 2 to 33% of the area; all else stays."""
    images = np.ones((2000, 32, 40, 3), "float32")
    found = erase(images, 0.3, SEED).numpy()
    holes = (found == 0).all(-1)
    assert ((found == 0) | (found == 1)).all()
    fraction = holes.mean((1, 2))
    assert 0.26 < (fraction > 0).mean() < 0.34
    # Rectangles are whole pixels, so the smallest may be slightly too small.
    assert 0.01 < fraction[fraction > 0].min() < 0.05
    assert 0.28 < fraction.max() < 0.36
    for hole in holes[fraction > 0][:50]:
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole.sum() == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        assert 0.3 * 0.8 < len(rows) / len(columns) < 3.3 * 1.25


@pytest.mark.parametrize("alpha", [0.2, *(pytest.param(alpha, marks=pytest.mark.slow) for alpha in (0.01, 1.0, 5.0))])
def test_weights_of_mixtures_come_from_beta(alpha):
    """Weights follow Beta(alpha, alpha), even where both gamma draws would be 0."""
    import tensorflow as tf

    @tf.function
    def draw():
        seeds = tf.stack([tf.fill([2000], tf.constant(5, tf.int64)), tf.range(2000, dtype=tf.int64)], axis=1)
        return tf.map_fn(lambda seed: beta(alpha, seed), seeds, fn_output_signature=tf.float32)

    drawn = draw().numpy()
    assert np.isfinite(drawn).all()
    if alpha < 0.1:
        assert np.mean((drawn < 0.01) | (drawn > 0.99)) > 0.9
        assert 0.45 < drawn.mean() < 0.55
    else:
        assert stats.kstest(drawn, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def labels_of(count, classes=5):
    """Return one-hot labels."""
    return np.eye(classes, dtype="float32")[np.arange(count) % classes]


def test_mixup_mixes_images_and_labels_alike():
    """Image and label are the same weighted mean of an example and its partner."""
    images, labels = floats(batch(6)), labels_of(6, 6)
    weights = set()
    for step in range(8):
        x, y = (t.numpy() for t in mix(images, labels, AugmentConfig(mixup=1.0), [1, step]))
        weight = y[0, 0]
        np.testing.assert_allclose(y, weight * labels + (1 - weight) * labels[::-1], atol=1e-6)
        np.testing.assert_allclose(x, weight * images + (1 - weight) * images[::-1], atol=1e-2)
        weights.add(round(float(weight), 3))
    assert len(weights) == 8


def test_cutmix_weighs_labels_by_area():
    """A rectangle comes from the partner, and its label has the weight of the rectangle's area."""
    ones, labels = (
        np.arange(6, dtype="float32")[:, None, None, None] * np.ones((6, 20, 30, 3), "float32"),
        labels_of(6, 6),
    )
    seen = []
    for step in range(20):
        x, y = (t.numpy() for t in mix(ones, labels, AugmentConfig(cutmix=1.0), [1, step]))
        own = (x == ones).all(-1)
        assert ((x == ones) | (x == ones[::-1])).all()
        for i, mine in enumerate(own):
            assert y[i, labels[i].argmax()] == pytest.approx(mine.mean(), abs=1e-5)
        rows, columns = np.flatnonzero(~own[0].all(1)), np.flatnonzero(~own[0].all(0))
        assert (~own[0]).sum() == len(rows) * len(columns)
        np.testing.assert_allclose(y.sum(1), 1, atol=1e-6)
        seen.append(own[0].mean())
    assert min(seen) < 0.5
    assert max(seen) > 0.8


def test_with_mixup_and_cutmix_each_batch_draws_one():
    """Some batches are blended and others cut, about half each."""
    images, labels = (
        np.arange(4, dtype="float32")[:, None, None, None] * np.ones((4, 16, 16, 1), "float32"),
        labels_of(4),
    )
    config = AugmentConfig(mixup=1.0, cutmix=1.0)
    # In a blended batch all pixels of an image are alike and none is whole.
    blended = [np.ptp(mix(images, labels, config, [2, step])[0].numpy()[0]) < 1e-6 for step in range(60)]
    assert 15 < sum(blended) < 45


def test_multi_hot_labels_are_mixed_too():
    """Multi-hot labels become weighted means between 0 and 1."""
    labels = np.array([[1, 1, 0], [0, 1, 1]], "float32")
    _, y = mix(floats(batch(2)), labels, AugmentConfig(mixup=1.0), [1, 1])
    weight = y.numpy()[0, 0]
    np.testing.assert_allclose(y, [[weight, 1, 1 - weight], [1 - weight, 1, weight]], atol=1e-6)


def test_unknown_labels_stay_unknown():
    """If one of two labels is -1, their mixture is -1; other labels are weighted means."""
    labels = np.array([[1, -1, 0], [0, 1, -1]], "float32")
    _, y = mix(floats(batch(2)), labels, AugmentConfig(mixup=1.0), [1, 1])
    assert (y.numpy()[:, 1:] == -1).all()
    np.testing.assert_allclose(y.numpy()[:, 0].sum(), 1, atol=1e-6)


def test_finishing_without_erasing_and_mixing_changes_nothing():
    """Without erasing and mixing, a batch is unchanged."""
    x, y = augment_normalized(floats(batch()), labels_of(4), AugmentConfig(flip=True), SEED)
    np.testing.assert_array_equal(x, batch())
    np.testing.assert_array_equal(y, labels_of(4))


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
