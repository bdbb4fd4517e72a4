"""Augmentation of training images; the seed and the step decide all of it.

In order: random crop (`crop`), affine transformations (`affine`), random operations (`policies`), color jitter and
noise (`color`); then, on normalized values, random erasing, mixup and CutMix (`mixing`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from training.augment.affine import has_affine, random_affine, random_flip
from training.augment.color import color_jitter, has_jitter
from training.augment.crop import crop_batch
from training.augment.mixing import erase, has_mixing, mix
from training.augment.policies import rand_augment, trivial_augment
from training.recipe.config import AugmentConfig
from zoo.common.errors import BadOption
from zoo.common.lazy import tf
from zoo.specs.tasks import task_of

# Options that change nothing by themselves.
MODIFIERS = ("fill", "crop_ratio", "magnitude", "place")
# A separate seed for each kind of augmentation, so that enabling one does not change the others.
CROP, POLICY, TRIVIAL, JITTER, ERASE, MIX = range(1, 7)


def is_active(config: AugmentConfig) -> bool:
    """Return whether the config changes anything."""
    plain = AugmentConfig()
    names = (field.name for field in dataclasses.fields(config) if field.name not in MODIFIERS)
    return any(getattr(config, name) != getattr(plain, name) for name in names)


def check_augment(config: AugmentConfig, channels: int, task: str) -> None:
    """Raise BadOption for augmentation that does not apply to images of `channels` channels or to a task."""
    for name in ("saturation", "hue"):
        if getattr(config, name) and channels != 3:
            raise BadOption(
                f"data.augment.{name} applies to color images. Received: data.augment.{name}="
                f"{getattr(config, name)} for images of {channels} channel"
            )
    for name in ("mixup", "cutmix"):
        if getattr(config, name) and not task_of(task).mixes:
            raise BadOption(
                f"data.augment.{name} mixes labels of classes. Received: data.augment.{name}={getattr(config, name)} "
                f"for the task {task!r}"
            )


def augment(images: Any, config: AugmentConfig, seed: Any) -> Any:
    """Return a batch of raw images with random crops, affine transformations, operations and color jitter.

    Args:
        images: (n, height, width, channels), values from 0 to 255 of any type.
        config: the augmentation.
        seed: int64 (2,); the same seed gives the same images.

    Returns:
        float32 (n, height, width, channels).
    """
    if config.flip and not has_affine(config):
        images = random_flip(images, config, seed)
    images = tf.cast(images, tf.float32)
    if config.crop_scale:
        images = crop_batch(images, config, fold_seed(seed, CROP))
    if has_affine(config):
        images = random_affine(images, config, seed)
    if config.rand_augment:
        images = rand_augment(images, config, fold_seed(seed, POLICY))
    if config.trivial_augment:
        images = trivial_augment(images, config, fold_seed(seed, TRIVIAL))
    return color_jitter(images, config, fold_seed(seed, JITTER)) if has_jitter(config) else images


def augment_normalized(images: Any, labels: Any, config: AugmentConfig, seed: Any) -> tuple[Any, Any]:
    """Return a batch with random erasing, mixup and CutMix.

    Args:
        images: float32 (n, height, width, channels), normalized.
        labels: targets of the loss; mixed images get weighted means of theirs.
        config: the augmentation.
        seed: int64 (2,), the same as for `augment`.
    """
    if config.erase:
        images = erase(images, config.erase, fold_seed(seed, ERASE))
    return mix(images, labels, config, fold_seed(seed, MIX)) if has_mixing(config) else (images, labels)


def fold_seed(seed: Any, number: int) -> Any:
    """Return the seed of one kind of augmentation in a step."""
    return tf.random.experimental.stateless_fold_in(seed, number)
