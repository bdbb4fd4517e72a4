"""Batches of features that are computed once, in the place of the images that a frozen trunk would see each epoch."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from training.common.sharding import WHOLE, Shard
from training.data.pipeline.encoding import Encoder
from training.data.pipeline.pipeline import Pipeline
from training.recipe.config import AugmentConfig
from zoo.common.lazy import np, tf


class FeatureEncoder(Encoder):
    """Features and targets are as the head takes them."""

    def prepare(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Return a batch as it is."""
        return x, y


@dataclasses.dataclass(frozen=True)
class FeaturePipeline(Pipeline):
    """The batches of a pipeline with the features of a trunk in the place of its inputs, held in memory.

    Args:
        source: the pipeline of the inputs.
        trunk: from inputs to features (n, ...), or a dictionary of several.
        views: number of augmented epochs of the training split that are computed, and seen in turn; without
            augmentation, all its examples once.
    """

    source: Pipeline | None = None
    trunk: Callable[[Any], Any] | None = None
    views: int = 1

    def train(self, epoch: int, skip: int = 0, shard: Shard = WHOLE) -> Any:
        """Return the batches of an epoch, of one view; see `Pipeline.train`."""
        self._memory["train"] = self._views[epoch % self.views]
        return super().train(epoch, skip, shard)

    @functools.cached_property
    def encoder(self) -> Encoder:
        """Return the encoder, which changes nothing."""
        return FeatureEncoder(self.dataset, self.shape, self.preprocessing)

    @functools.cached_property
    def _views(self) -> list[tuple[Any, Any]]:
        source = self.source
        if source.recipe.data.augment == AugmentConfig():
            return [self._features(source.evaluate("train"))]
        return [self._features(source.train(view)) for view in range(self.views)]

    def _fits(self, split: str) -> bool:
        return True

    def _arrays(self, split: str) -> tuple[Any, Any]:
        if split not in self._memory:
            self._memory[split] = self._features(self.source.evaluate(split))
        return self._memory[split]

    def _features(self, batches: Any) -> tuple[Any, Any]:
        """Return the features and targets of all examples in batches, on the host."""
        found = [(self.trunk(x), y) for x, y in batches]
        with tf.device("CPU"):
            return tf.nest.map_structure(lambda *parts: tf.constant(np.concatenate(list(map(_array, parts)))), *found)


def _array(values: Any) -> Any:
    """Return values as an array of float32 at least."""
    return np.asarray(tf.cast(values, tf.float32) if values.dtype.is_floating else values)


def feature_pipeline(pipeline: Pipeline, trunk: Callable[[Any], Any], views: int) -> FeaturePipeline:
    """Return the pipeline of the features of a trunk.

    Args:
        pipeline: the pipeline of a recipe.
        trunk: from its inputs to features (n, ...), or a dictionary of several.
        views: number of augmented views of each training image.
    """
    source, train = pipeline.for_training, pipeline.dataset.splits["train"]
    augment, plain = source.recipe.data.augment, AugmentConfig()
    if augment != plain:
        # An augmented epoch leaves out the rest of its last batch.
        train = dataclasses.replace(train, count=source.steps_per_epoch * source.batch_size)
        data = dataclasses.replace(source.recipe.data, augment=dataclasses.replace(augment, place="pipeline"))
        source = dataclasses.replace(source, recipe=dataclasses.replace(source.recipe, data=data))
    finetune = dataclasses.replace(source.recipe.finetune, views=min(1, source.recipe.finetune.views))
    data = dataclasses.replace(source.recipe.data, augment=plain, train_size=())
    return FeaturePipeline(
        dataset=dataclasses.replace(pipeline.dataset, splits={**pipeline.dataset.splits, "train": train}),
        recipe=dataclasses.replace(source.recipe, data=data, finetune=finetune),
        shape=source.shape,
        preprocessing=source.preprocessing,
        text=source.text,
        source=source,
        trunk=trunk,
        views=views if augment != plain else 1,
    )
