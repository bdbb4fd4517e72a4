"""The private APIs of TensorFlow and TensorFlow Datasets that reading data needs; a failure names what changed."""

from __future__ import annotations

import dataclasses

from training.common.compat import NO_SEED, imagenet_classes, without_global_seed


def test_default_seed_of_tensorflow():
    """tensorflow.python.framework.random_seed.DEFAULT_GRAPH_SEED, which get_seed returns without a seed."""
    import tensorflow as tf
    from tensorflow.python.framework import random_seed

    assert random_seed.DEFAULT_GRAPH_SEED == NO_SEED
    tf.random.set_seed(None)
    assert tf.compat.v1.get_seed(1) == (NO_SEED, 1)


def test_global_seed_is_unset_and_restored():
    """A shuffle in the context ignores the global seed, which is restored afterwards."""
    import tensorflow as tf

    for seed in (None, 5):
        tf.random.set_seed(seed)
        before = tf.compat.v1.get_seed(1)
        with without_global_seed():
            assert tf.compat.v1.get_seed(1) == (NO_SEED, 1)
        assert tf.compat.v1.get_seed(1) == before
    tf.random.set_seed(None)


def test_labels_of_imagenet_in_tfds():
    """tensorflow_datasets/datasets/imagenet2012/labels.txt."""
    found = imagenet_classes()
    assert len(set(found)) == 1000
    assert (found[0], found[-1]) == ("n01440764", "n15075141")


def test_file_instructions_of_tfds():
    """tensorflow_datasets.core.utils.shard_utils.FileInstruction and its fields."""
    from tensorflow_datasets.core.utils.shard_utils import FileInstruction

    assert {"filename", "skip", "take", "examples_in_shard"} <= {f.name for f in dataclasses.fields(FileInstruction)}


def test_builders_of_tfds_without_a_package():
    """tensorflow_datasets.core.DatasetBuilder.pkg_dir_path, which a builder sets to None."""
    import tensorflow_datasets as tfds

    assert hasattr(tfds.core.DatasetBuilder, "pkg_dir_path")
    assert tfds.core.FileFormat.TFRECORD.value == "tfrecord"
