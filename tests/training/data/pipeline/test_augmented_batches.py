"""Augmented batches: decided by seed and step, crops, repeats, mixed labels, and augmentation in the step."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
from digit_batches import batches, digits, same
from PIL import Image

import training.data.pipeline.pipeline as pipeline_module
import zoo
from training import AugmentConfig, DataConfig, Recipe
from training.augment.augment import augment
from training.data.pipeline.opening import open_pipeline
from zoo.common.errors import BadOption

STRONG = AugmentConfig(flip=True, shift=0.2, rotate=20, zoom=0.2, fill="nearest")

# Of images, which take seconds, quick is the hardest case; vectors of numbers are served in each way.
OF_IMAGES = [*(pytest.param(way, marks=pytest.mark.slow) for way in ("memory", "stream")), "stream in a small buffer"]


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
