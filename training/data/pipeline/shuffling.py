"""The order of the examples of an epoch for splits that do not fit into memory."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from training.common.compat import without_global_seed
from training.common.tracing import as_it_is
from training.data.dataset import Split
from zoo.common.lazy import np, tf


def epoch_examples(
    split: Split, seeds: tuple[int, int], skip: int, repeats: int, buffer: int, subset: Callable[[Any], Any]
) -> Any:
    """Return the encoded examples of an epoch in its order.

    Args:
        split: the training split.
        seeds: the seed of the recipe and the epoch.
        skip: number of examples to skip at its start, repeats counted.
        repeats: times that each example comes in a row.
        buffer: size of the shuffle buffer, where the split cannot shuffle itself.
        subset: maps the examples of all batches to those that are read.
    """
    epoch = seeds[1]
    seed = int(np.random.default_rng(list(seeds)).integers(1 << 31))
    whole, rest = divmod(skip, repeats)
    if split.shuffled and repeats == 1 and len(inspect.signature(split.shuffled).parameters) > 2:
        return split.shuffled(seed, whole, subset)
    if split.shuffled:
        examples = split.shuffled(seed, whole)
    else:
        # With repeats, an epoch covers few images: each epoch starts where the last one ended.
        start = epoch * (split.count // repeats) % split.count if repeats > 1 else 0
        examples = split.examples.skip(start).concatenate(split.examples.take(start)) if start else split.examples
        with without_global_seed():
            examples = examples.shuffle(min(buffer, split.count), seed, reshuffle_each_iteration=False)
        examples = examples.skip(whole)
    if repeats > 1:
        copies = as_it_is(lambda *e: tf.data.Dataset.from_tensors(e).repeat(repeats))
        examples = examples.flat_map(copies).skip(rest)
    return subset(examples)
