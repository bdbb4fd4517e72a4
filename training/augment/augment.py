"""Augmentation of training images, all of it decided by the seed and the step.

In order: a crop of the encoded image (`_crop`), movements (`_affine`), drawn operations (`_policies`), colours and
noise (`_colour`); then, on normalized values, holes and mixtures (`_mix`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from training.augment.affine import mirror, move, moves
from training.augment.color import jitter, jitters
from training.augment.crop import crop_batch
from training.augment.mixing import erase, mix, mixes
from training.augment.policies import rand_augment, trivial_augment
from training.common.sharding import taking
from training.recipe.config import AugmentConfig
from zoo.common.errors import BadOption
from zoo.common.lazy import keras, tf

# Options that say how something is done and not that it is.
MANNERS = ("fill", "crop_ratio", "magnitude", "place")
# Each concern has a seed of its own, so that turning one on leaves the others as they were.
CROP, POLICY, TRIVIAL, JITTER, ERASE, MIX = range(1, 7)


def is_active(config: AugmentConfig) -> bool:
    """Tell whether the configuration changes anything."""
    plain = AugmentConfig()
    names = (field.name for field in dataclasses.fields(config) if field.name not in MANNERS)
    return any(getattr(config, name) != getattr(plain, name) for name in names)


def check_augment(config: AugmentConfig, channels: int, task: str, batch_size: int) -> None:
    """Raise BadOption for what cannot be done to images of so many channels, or to the labels of a task."""
    _check_bounds("crop_scale", config.crop_scale, 1.0)
    _check_bounds("crop_ratio", config.crop_ratio or (0.0,), float("inf"))
    for name in ("saturation", "hue"):
        if getattr(config, name) and channels != 3:
            raise BadOption(
                f"data.augment.{name} applies to colour images. Received: data.augment.{name}="
                f"{getattr(config, name)} for images of {channels} channel"
            )
    for name in ("mixup", "cutmix"):
        if getattr(config, name) and task not in ("classify", "multilabel"):
            raise BadOption(
                f"data.augment.{name} mixes labels of classes. Received: data.augment.{name}={getattr(config, name)} "
                f"for the task {task!r}"
            )
    if config.repeats > batch_size:
        raise BadOption(
            "A batch holds each image data.augment.repeats times. Received: data.augment.repeats="
            f"{config.repeats}, a batch of {batch_size}. Change one of them."
        )


def _check_bounds(name: str, values: tuple[float, ...], most: float) -> None:
    if values and not (len(values) == 2 and 0 < values[0] <= values[1] <= most):
        limit = "above 0" if most == float("inf") else f"above 0 and up to {most:g}"
        raise BadOption(
            f"data.augment.{name} must be [smallest, largest], {limit}. Received: data.augment.{name}={list(values)}"
        )


def augment(images: Any, config: AugmentConfig, seed: Any) -> Any:
    """Return a batch of raw images cropped, moved, operated on and coloured at random.

    Args:
        images: (n, height, width, channels), values from 0 to 255 of any type.
        config: what may happen, and how far.
        seed: int64 (2,); the same seed gives the same images.

    Returns:
        float32 (n, height, width, channels).
    """
    if config.flip and not moves(config):
        images = mirror(images, config, seed)
    images = tf.cast(images, tf.float32)
    if config.crop_scale:
        images = crop_batch(images, config, concern(seed, CROP))
    if moves(config):
        images = move(images, config, seed)
    if config.rand_augment:
        images = rand_augment(images, config, concern(seed, POLICY))
    if config.trivial_augment:
        images = trivial_augment(images, config, concern(seed, TRIVIAL))
    return jitter(images, config, concern(seed, JITTER)) if jitters(config) else images


def finish(images: Any, labels: Any, config: AugmentConfig, seed: Any) -> tuple[Any, Any]:
    """Return a batch with holes in its images, and mixed with itself.

    Args:
        images: float32 (n, height, width, channels), normalized.
        labels: as the loss takes them; of mixed images, weighted means of theirs.
        config: what may happen, and how far.
        seed: int64 (2,), the same as for `augment`.
    """
    if config.erase:
        images = erase(images, config.erase, concern(seed, ERASE))
    return mix(images, labels, config, concern(seed, MIX)) if mixes(config) else (images, labels)


def concern(seed: Any, number: int) -> Any:
    """Return the seed of one concern of a step."""
    return tf.random.experimental.stateless_fold_in(seed, number)


def augment_in_step(model: Any, change: Any, seed: int, rows: Any = None) -> None:
    """Let a compiled model augment its batches inside its training step; it computes and saves what it did before.

    Args:
        model: a compiled keras.Model.
        change: takes (x, y, seed int64 (2,)) of a raw batch and returns what network and loss take.
        seed: of the recipe; the step is counted by the optimizer, which a checkpoint restores.
        rows: where several replicas share a batch, which of its rows each one has, int64 (replicas, rows).
    """
    inner = model.train_step

    def train_step(data: Any) -> Any:
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        step = tf.cast(tf.convert_to_tensor(model.optimizer._iterations), tf.int64)
        drawn = tf.stack([tf.cast(seed, tf.int64), step])
        if rows is None:
            changed = change(x, y, drawn)
        else:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            with taking(rows.size, tf.gather(rows, replica)):
                changed = change(x, y, drawn)
        return inner(keras.utils.pack_x_y_sample_weight(*changed, weight))

    model.train_step = train_step
