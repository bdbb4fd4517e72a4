"""Batches of numbered vectors: order, skipping, evaluation, and the same in memory and streamed; refused data."""

from __future__ import annotations

import numpy as np
import pytest
from digit_batches import batches, digits, same, streaming

import zoo
from training import AugmentConfig, DataConfig, Dataset, ModelConfig, Recipe, Split, register_dataset
from training.data.dataset import datasets
from training.data.pipeline.opening import open_pipeline
from zoo import PreprocessingConfig
from zoo.common.errors import BadOption, DataError


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


def test_data_without_validation_is_refused():
    """Training needs a validation split, and the error reports it."""
    with pytest.raises(DataError, match=r"validation split.*test_numbered"):
        features(path="train,test")
    assert list(features(path="train,validation").dataset.splits) == ["train", "validation"]
