"""Erasing, mixup and CutMix: distributions of areas and weights, and labels mixed like their images."""

from __future__ import annotations

import numpy as np
import pytest
from augment_images import SEED, batch, floats
from scipy import stats

from training import AugmentConfig
from training.augment.augment import augment_normalized
from training.augment.mixing import beta, erase, mix


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
