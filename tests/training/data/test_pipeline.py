"""From a dataset to batches: order, skipping, memory and streaming, augmentation, preprocessing."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import training.data.pipeline.pipeline as pipeline_module
import zoo
from training import AugmentConfig, DataConfig, Dataset, ModelConfig, Recipe, Split, register_dataset
from training.augment.affine import _draw
from training.augment.augment import augment
from training.data.dataset import datasets
from training.data.pipeline.opening import open_pipeline
from zoo import PreprocessingConfig
from zoo.common.errors import BadOption, DataError

STRONG = AugmentConfig(flip=True, shift=0.2, rotate=20, zoom=0.2, fill="nearest")


def digits(seed=1, model="resnet_tiny", **data):
    """Return the pipeline of the digits for a recipe with this seed."""
    recipe = Recipe("test", model=ModelConfig(model), data=DataConfig("digits", **data), seed=seed)
    return open_pipeline(recipe, zoo.spec(model))


def streaming(monkeypatch, buffer=10_000):
    """Stream everything: nothing fits into memory."""
    monkeypatch.setattr(pipeline_module, "MEMORY", 0)
    monkeypatch.setattr(pipeline_module, "SHUFFLE", buffer)


def batches(dataset):
    """Return (x, y) of all batches."""
    return [(np.asarray(x), np.asarray(y)) for x, y in dataset]


def same(one, two):
    """Return whether two lists of batches are equal to the bit."""
    return len(one) == len(two) and all(
        np.array_equal(x1, x2) and np.array_equal(y1, y2) for (x1, y1), (x2, y2) in zip(one, two, strict=True)
    )


# Of images, which take seconds, quick is the hardest case; vectors of numbers are served in each way.
OF_IMAGES = [*(pytest.param(way, marks=pytest.mark.slow) for way in ("memory", "stream")), "stream in a small buffer"]


# Of streaming, a buffer smaller than the data is the harder case.
@pytest.fixture(params=["memory", pytest.param("stream", marks=pytest.mark.slow), "stream in a small buffer"])
def serving(request, monkeypatch):
    """Serve from memory, by streaming, and by streaming with a buffer smaller than the data."""
    if request.param != "memory":
        streaming(monkeypatch, 10_000 if request.param == "stream" else 100)
    return request.param


@pytest.fixture(scope="module", autouse=True)
def numbered():
    """Register a dataset of 100 feature vectors that contain their own number; 25 validate, 30 test."""
    import tensorflow as tf

    def split(low, high):
        x = np.arange(low, high, dtype="float32")[:, None] * np.ones((1, 4), "float32")
        return Split(tf.data.Dataset.from_tensor_slices((x, np.arange(low, high) % 3)), high - low)

    @register_dataset("test_numbered")
    def load(config):
        splits = {"train": split(0, 100), "validation": split(100, 125), "test": split(125, 155)}
        wanted = config.path.split(",") if config.path else splits
        return Dataset("test_numbered", ("a", "b", "c"), (4,), {name: splits[name] for name in wanted})

    yield load
    del datasets._entries["test_numbered"]
    datasets._origins.pop("test_numbered", None)


def features(seed=1, batch_size=16, **data):
    """Return the pipeline of the numbered vectors for a recipe with this seed."""
    preprocessing = PreprocessingConfig()
    config = DataConfig("test_numbered", batch_size=batch_size, preprocessing=preprocessing, **data)
    return open_pipeline(Recipe("test", model=ModelConfig("mlp"), data=config, seed=seed), zoo.spec("mlp"))


def order(pipe, epoch, skip=0):
    """Return the numbers of the vectors of an epoch in the order of its batches."""
    return [int(n) for x, _ in batches(pipe.train(epoch, skip)) for n in x[:, 0]]


@pytest.mark.usefixtures("serving")
def test_order_depends_on_seed_and_epoch_only():
    """The same seed and epoch give the same order; another seed or epoch gives another."""
    first = order(features(), 0)
    assert order(features(), 0) == first
    assert order(features(), 1) != first
    assert order(features(seed=2), 0) != first


@pytest.mark.usefixtures("serving")
def test_order_does_not_depend_on_the_global_seed():
    """Seeds of TensorFlow and NumPy that a program set before change nothing."""
    import tensorflow as tf

    first = order(features(), 0)
    np.random.seed(77)
    tf.random.set_seed(77)
    try:
        assert order(features(), 0) == first
    finally:
        tf.random.set_seed(None)


@pytest.mark.usefixtures("serving")
def test_every_example_comes_at_most_once_an_epoch():
    """An epoch has whole batches of distinct training examples, with their own labels."""
    pipe = features()
    assert pipe.steps_per_epoch == 6
    found = batches(pipe.train(3))
    numbers = [int(n) for x, _ in found for n in x[:, 0]]
    assert len(numbers) == len(set(numbers)) == 96
    assert set(numbers) <= set(range(100))
    assert [n % 3 for n in numbers] == [int(k) for _, y in found for k in y.argmax(-1)]
    assert all(x.dtype == y.dtype == np.float32 for x, y in found)


def test_what_is_left_out_differs_from_epoch_to_epoch():
    """Each epoch leaves out other examples that do not fill a batch, so that all are used."""
    pipe = features()
    left = [frozenset(range(100)) - set(order(pipe, epoch)) for epoch in range(6)]
    assert all(len(one) == 4 for one in left)
    assert len(set(left)) > 1


@pytest.mark.usefixtures("serving")
def test_skip_gives_the_rest_of_the_same_epoch():
    """After any number of skipped steps the rest of the epoch is the same."""
    pipe = features()
    whole = order(pipe, 2)
    for skip in (0, 1, 3, 5, 6):
        assert order(pipe, 2, skip) == whole[16 * skip :]


@pytest.mark.parametrize("serving", OF_IMAGES, indirect=True)
@pytest.mark.usefixtures("serving")
def test_skip_is_equal_to_the_bit_with_augmentation():
    """A resumed epoch has the same augmented images, batch for batch."""
    pipe = digits(augment=STRONG, batch_size=200)
    whole = batches(pipe.train(1))
    assert len(whole) == pipe.steps_per_epoch == 6
    for skip in (2, 5):
        assert same(batches(pipe.train(1, skip)), whole[skip:])


def test_augmentation_differs_between_steps_and_seeds():
    """No two steps, epochs or seeds augment their images alike."""
    images = np.ones((4, 8, 8, 1), "float32") * np.linspace(0, 255, 8, dtype="float32")[:, None]
    found = [np.asarray(augment(images, STRONG, seed)) for seed in ([1, 0], [1, 1], [2, 0])]
    assert not any(np.array_equal(found[i], found[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_batch_is_never_larger_than_the_split():
    """With fewer examples than the batch size, a step takes them all."""
    pipe = features(batch_size=1000)
    assert (pipe.batch_size, pipe.steps_per_epoch) == (100, 1)
    assert sorted(order(pipe, 0)) == list(range(100))


@pytest.mark.usefixtures("serving")
def test_evaluate_keeps_the_order_and_leaves_none_out():
    """Evaluation serves a split in order, with a smaller last batch."""
    found = batches(features().evaluate("test"))
    assert [len(x) for x, _ in found] == [16, 14]
    assert [int(n) for x, _ in found for n in x[:, 0]] == list(range(125, 155))


def test_memory_and_streaming_evaluate_alike(monkeypatch):
    """Images from memory and streamed images are the same, in every split."""
    pipe = digits()
    in_memory = {name: batches(pipe.evaluate(name)) for name in ("train", "validation", "test")}
    streaming(monkeypatch)
    pipe = digits()
    for name, wanted in in_memory.items():
        assert same(batches(pipe.evaluate(name)), wanted)


def test_memory_and_streaming_give_the_same_raw_examples(monkeypatch):
    """Raw examples are whole pixel values from all over the split, in memory and streamed."""
    x, y = digits().raw("test", 10)
    assert (x.shape, x.dtype, len(y)) == ((10, 8, 8, 1), np.float32, 10)
    np.testing.assert_array_equal(x, np.rint(x))
    assert x.max() > 200
    streaming(monkeypatch)
    again = digits().raw("test", 10)
    np.testing.assert_array_equal(again[0], x)
    np.testing.assert_array_equal(again[1], y)


def test_raw_gives_all_there_are():
    """A request for more examples than a split has returns each once."""
    x, y = features().raw("validation", 1000)
    assert x[:, 0].tolist() == list(range(100, 125))
    assert y.tolist() == [n % 3 for n in range(100, 125)]


def test_no_augmentation_changes_nothing():
    """With every option at 0, and in evaluation, images are unchanged."""
    images = np.random.default_rng(0).uniform(0, 255, (3, 9, 7, 3)).astype("float32")
    np.testing.assert_array_equal(augment(images, AugmentConfig(), [1, 2]), images)
    still, moving = digits(), digits(augment=STRONG)
    assert same(batches(still.evaluate("test")), batches(moving.evaluate("test")))
    assert not same(batches(still.train(0)), batches(moving.train(0)))


def test_augmentation_is_decided_by_its_seed():
    """The same seed gives the same images, whatever was drawn before."""
    images = np.random.default_rng(0).uniform(0, 255, (5, 8, 8, 1)).astype("float32")
    first = np.asarray(augment(images, STRONG, [3, 4]))
    augment(images, STRONG, [3, 5])
    np.testing.assert_array_equal(augment(images, STRONG, [3, 4]), first)


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


def test_augmentation_of_features_is_refused():
    """Vectors cannot be flipped."""
    with pytest.raises(BadOption, match=r"data\.augment applies to images.*\(4,\)"):
        features(augment=AugmentConfig(flip=True))


@pytest.mark.parametrize("preprocessing", [{"mean": [1, 2, 3]}, {"std": [1, 2]}, {"mean": [1, 2], "std": [1, 2]}])
def test_preprocessing_for_other_channels_is_refused(preprocessing):
    """A preprocessing config of 2 or 3 numbers does not fit data with another number of channels."""
    numbers = {name: tuple(map(float, values)) for name, values in preprocessing.items()}
    recipe = Recipe("test", data=DataConfig("test_numbered", preprocessing=PreprocessingConfig(**numbers)))
    with pytest.raises(BadOption, match="for data of 4 channels"):
        open_pipeline(recipe, zoo.spec("mlp"))


def test_preprocessing_for_color_is_averaged_for_grayscale():
    """For grayscale images, a preprocessing config for three channels is averaged; the rest stays."""
    preprocessing = PreprocessingConfig((1.0, 2.0, 6.0), (4.0, 5.0, 9.0), "bicubic", 0.9)
    assert digits(preprocessing=preprocessing).preprocessing == PreprocessingConfig((3.0,), (6.0,), "bicubic", 0.9)
    one = dataclasses.replace(preprocessing, std=(4.0,))
    assert digits(preprocessing=one).preprocessing == PreprocessingConfig((3.0,), (4.0,), "bicubic", 0.9)
    many = dataclasses.replace(preprocessing, mean=(2.0,))
    assert digits(preprocessing=many).preprocessing == PreprocessingConfig((2.0,), (6.0,), "bicubic", 0.9)


def test_preprocessing_of_the_recipe_comes_before_that_of_the_data():
    """The recipe's preprocessing config applies if it has one, the data's otherwise."""
    assert digits().preprocessing.mean == (78.0,)
    assert digits(preprocessing=PreprocessingConfig(mean=(3.0,))).preprocessing.mean == (3.0,)
    x, _ = next(iter(digits(preprocessing=PreprocessingConfig(mean=(3.0,), std=(2.0,))).evaluate("test")))
    raw, _ = digits().raw("test", 360)
    np.testing.assert_allclose(x, (raw[:64] - 3) / 2, rtol=1e-6)


def test_preprocessing_of_the_model_is_the_last_resort(tmp_path):
    """Folders of images have no preprocessing config, so the model's config and size apply."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(10):
            pixels = np.random.default_rng(i).integers(0, 255, (40, 50, 3)).astype("uint8")
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    recipe = Recipe("test", data=DataConfig("folder", path=str(tmp_path), batch_size=4))
    pipe = open_pipeline(recipe, zoo.spec("resnet_tiny"))
    assert pipe.preprocessing == zoo.spec("resnet_tiny").preprocessing
    assert pipe.shape == (32, 32, 3)
    x, y = next(iter(pipe.train(0)))
    assert (x.shape, y.shape) == ((4, 32, 32, 3), (4, 2))


def test_size_and_channels_of_the_recipe():
    """data.image_size and data.channels apply if they are given."""
    pipe = digits(image_size=(12, 16), channels=3)
    assert pipe.shape == (12, 16, 3)
    x, _ = next(iter(pipe.evaluate("test")))
    assert x.shape == (64, 12, 16, 3)
    np.testing.assert_array_equal(x[..., 0], x[..., 2])


@pytest.mark.parametrize("size", [(8,), (8, 8, 1), (0, 8), (-1, 8)])
def test_image_size_must_be_height_and_width(size):
    """Anything but two sizes of at least 1 is refused."""
    with pytest.raises(BadOption, match=r"data\.image_size must be \[height, width\]"):
        digits(image_size=size)


def test_data_without_validation_is_refused():
    """Training needs a validation split, and the error reports it."""
    with pytest.raises(DataError, match=r"validation split.*test_numbered"):
        features(path="train,test")
    assert list(features(path="train,validation").dataset.splits) == ["train", "validation"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 48 images in two classes and many sizes, as JPEG and PNG; the color identifies the class."""
    folder = tmp_path_factory.mktemp("photos")
    for label, name in enumerate(("blue", "red")):
        (folder / name).mkdir()
        for i in range(24):
            random = np.random.default_rng(100 * label + i)
            pixels = random.integers(0, 60, (40 + i, 70 - i, 3)).astype("uint8")
            pixels[..., 2 - 2 * label] += 150
            Image.fromarray(pixels).save(folder / name / f"{i:02d}.{'jpg' if i % 3 else 'png'}")
    return folder


CROPPED = AugmentConfig(flip=True, crop_scale=(0.3, 1.0))


def folder_of(path, seed=1, batch_size=8, **data):
    """Return the pipeline of the photographs at 24x24 pixels."""
    config = DataConfig("folder", path=str(path), batch_size=batch_size, image_size=(24, 24), **data)
    return open_pipeline(Recipe("test", data=config, seed=seed), zoo.spec("resnet_tiny"))


def test_crops_are_cut_while_decoding(photos):
    """Images of many sizes give random crops with their own labels; each epoch and seed gives others."""
    pipe = folder_of(photos, augment=CROPPED)
    first = batches(pipe.train(0))
    assert len(first) == pipe.steps_per_epoch == 4
    for x, y in first:
        assert (x.shape, x.dtype) == ((8, 24, 24, 3), np.float32)
        assert (x.mean((1, 2))[:, [2, 0]].argmax(1) == y.argmax(1)).all()
    assert same(batches(folder_of(photos, augment=CROPPED).train(0)), first)
    assert not same(batches(pipe.train(1)), first)
    assert not same(batches(folder_of(photos, seed=2, augment=CROPPED).train(0)), first)


@pytest.mark.slow
@pytest.mark.parametrize("repeats", [1, 2, 8])
def test_crops_resume_where_they_stopped(photos, repeats):
    """After skipped steps, the rest of an epoch is the same to the bit, with all other random augmentation."""
    everything = dataclasses.replace(
        CROPPED, rotate=10, rand_augment=2, trivial_augment=True, hue=0.1, noise=0.1, erase=0.5, mixup=0.2, cutmix=1.0,
        repeats=repeats,
    )  # fmt: skip
    pipe = folder_of(photos, augment=everything)
    whole = batches(pipe.train(2))
    for skip in (1, 3):
        assert same(batches(pipe.train(2, skip)), whole[skip:])


def test_large_folder_is_shuffled_by_name(photos, monkeypatch):
    """Data that does not fit into memory is shuffled over all files, each at most once."""
    monkeypatch.setattr(pipeline_module, "MEMORY", 0)
    monkeypatch.setattr(pipeline_module, "SHUFFLE", 1)
    pipe = folder_of(photos)
    stills = {x.tobytes() for batch, _ in batches(pipe.evaluate("train")) for x in batch}
    first = [x.tobytes() for batch, _ in batches(pipe.train(0)) for x in batch]
    assert len(set(first)) == len(first) == 32
    assert set(first) <= stills
    assert first != [x.tobytes() for batch, _ in batches(pipe.train(1)) for x in batch]


@pytest.mark.parametrize("serving", OF_IMAGES, indirect=True)
@pytest.mark.usefixtures("serving")
def test_repeats_put_copies_of_an_image_into_a_batch():
    """Each image is in a batch as often as requested, augmented differently; other epochs take other images."""
    pipe = digits(augment=AugmentConfig(repeats=4, noise=1e-6), batch_size=64)
    seen = set()
    for epoch in range(2):
        found = batches(pipe.train(epoch))
        assert len(found) == pipe.steps_per_epoch == 20
        for x, y in found:
            assert x.shape == (64, 8, 8, 1)
            groups = np.round(x.reshape(16, 4, -1), 3)
            np.testing.assert_array_equal(groups[:, 0], groups[:, 3])
            np.testing.assert_array_equal(y[::4], y[3::4])
            seen |= {group.tobytes() for group in groups[:, 0]}
    # 320 different images an epoch.
    assert 400 < len(seen) <= 640


def test_repeated_copies_are_augmented_apart():
    """The copies differ from one another."""
    x, _ = next(iter(digits(augment=AugmentConfig(repeats=2, shift=0.3), batch_size=64).train(0)))
    pairs = np.asarray(x).reshape(32, 2, -1)
    assert np.mean((pairs[:, 0] != pairs[:, 1]).any(1)) > 0.8


def test_mixed_labels_reach_the_loss():
    """Mixed labels sum to 1 and are not one-hot; evaluation does not mix."""
    pipe = digits(augment=AugmentConfig(mixup=1.0), batch_size=64)
    rows = np.concatenate([y for _, y in batches(pipe.train(0))])
    np.testing.assert_allclose(rows.sum(1), 1, atol=1e-6)
    assert np.mean(rows.max(1) < 0.999) > 0.7
    assert all(set(np.unique(y)) == {0.0, 1.0} for _, y in batches(pipe.evaluate("test")))


def test_holes_are_the_mean_of_the_data():
    """Erased pixels are 0 after normalization."""
    pipe = digits(augment=AugmentConfig(erase=1.0))
    x, _ = next(iter(pipe.train(0)))
    assert np.mean((np.asarray(x) == 0).any((1, 2, 3))) > 0.9
    x, _ = next(iter(digits().train(0)))
    assert not (np.asarray(x) == 0).any()


@pytest.mark.parametrize("change", [{"saturation": 0.1}, {"crop_scale": (0.5, 0.1)}, {"crop_ratio": (1.0,)}])
def test_augmentation_that_cannot_apply_is_refused_at_once(change):
    """Opening the data reports it, before the first epoch."""
    with pytest.raises(BadOption, match=f"data.augment.{next(iter(change))}"):
        digits(augment=AugmentConfig(**change))


def rewritten():
    """Return the number of functions that AutoGraph has rewritten in this process."""
    return sum(name.startswith("__autograph_generated") for name in sys.modules)


def test_functions_are_traced_as_they_are(photos):
    """AutoGraph rewrites none of those that decode, crop, augment and prepare images; the control is rewritten."""
    import tensorflow as tf

    before = rewritten()
    pipe = folder_of(photos, augment=CROPPED)
    next(iter(pipe.train(0))), next(iter(pipe.evaluate("test")))
    assert rewritten() == before
    tf.data.Dataset.range(1).map(lambda x: x + 1 if x > 0 else x)
    assert rewritten() > before


def test_training_may_have_a_size_of_its_own(photos):
    """Training images have data.train_size, cropped or not; all others have data.image_size."""
    for augment_ in (AugmentConfig(), CROPPED):
        pipe = folder_of(photos, augment=augment_, train_size=(16, 20))
        assert pipe.shape == (24, 24, 3)
        found = batches(pipe.train(0))
        assert {x.shape for x, _ in found} == {(8, 16, 20, 3)}
        assert same(found[1:], batches(pipe.train(0, 1)))
        assert [next(iter(pipe.evaluate(split)))[0].shape[1:3] for split in ("train", "validation")] == [(24, 24)] * 2
    for wrong in ((8,), (0, 8)):
        with pytest.raises(BadOption, match=r"data\.train_size must be \[height, width\]"):
            folder_of(photos, train_size=wrong)


IN_STEP = AugmentConfig(flip=True, shift=0.1, rand_augment=1, mixup=0.2, erase=0.3, place="device")


def test_batches_for_the_step_are_raw():
    """With augmentation on the device, batches have whole 8-bit levels, and labels for the loss."""
    pipe = digits(augment=IN_STEP)
    assert pipe.augments_on_device
    assert not digits(augment=AugmentConfig(place="device")).augments_on_device
    assert not digits(augment=dataclasses.replace(IN_STEP, place="pipeline")).augments_on_device
    x, y = next(iter(pipe.train(0)))
    assert x.dtype.name == "uint8"
    assert y.shape == (64, 10)


@pytest.mark.slow
def test_augmentation_in_the_step_trains_alike(tmp_path):
    """A run with augmentation in its steps trains, twice the same to the bit; the model takes plain images."""
    import training

    changes = {f"data.augment.{f.name}": getattr(IN_STEP, f.name) for f in dataclasses.fields(IN_STEP)}
    changes |= {"data.augment.crop_ratio": [0.75, 1.33], "data.augment.crop_scale": []}
    changes |= {"model.name": "resnet_tiny", "epochs": 3, "data.batch_size": 256, "schedule.warmup_epochs": 1}
    one, two = (training.train("digits_resnet", changes, run=tmp_path / name) for name in "ab")
    losses = [[row["loss"] for row in run.metrics()] for run in (one, two)]
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]
    assert one.result()["test"]["loss"] == two.result()["test"]["loss"]
    again, known = training.evaluate(one), one.result()["test"]
    assert again.to_json()["confusion"] == known["confusion"]
    assert again.loss == pytest.approx(known["loss"], rel=1e-5)


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_step_augments_in_training_only_and_knows_its_number(step):
    """The step augments its batches with a seed from the optimizer's count; evaluation does not augment."""
    import keras
    import tensorflow as tf

    from training.learning.build import augmentation

    class Model(keras.Sequential):
        def train_step(self, data):
            return super().train_step(augment_step(data))

    model = Model([keras.Input((2,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.optimizer.build(model.trainable_variables)
    x, y = np.ones((4, 2), "float32"), np.full((4, 1), 2.0, "float32")
    assert model.evaluate(x, y, verbose=0) == 0
    augment_step = augmentation(
        model, lambda x, y, seed: (x * tf.cast(seed[1], tf.float32) * tf.cast(seed[0] == 7, tf.float32), y), 7
    )
    # A checkpoint restores this.
    model.optimizer.iterations.assign(step)
    assert model.fit(x, y, verbose=0).history["loss"][0] == (2 * step - 2) ** 2
    assert model.evaluate(x, y, verbose=0) == 0
