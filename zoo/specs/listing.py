"""Listing registered models by wildcard, family, tag and published weights."""

from __future__ import annotations

from collections.abc import Iterable

from zoo.common.errors import UnknownName, did_you_mean
from zoo.specs.published import PublishedWeights
from zoo.specs.registry import models


def list_models(
    *patterns: str,
    exclude: str | Iterable[str] = (),
    family: str | None = None,
    tag: str | None = None,
    pretrained: bool = False,
) -> list[str]:
    """Return the names of the registered models in natural order.

    Args:
        *patterns: shell wildcards, of which one must match; none for all models.
        exclude: one or more wildcards that must not match.
        family: only models of this family.
        tag: only models with this tag.
        pretrained: only models with published weights that `zoo.get(model, weights="imagenet")` loads.

    Returns:
        Names for `zoo.get` and `zoo.spec`.

    Raises:
        UnknownName: no model has this family or tag.
    """
    specs = {name: models[name].spec for name in models.names()}
    _check_known("family", family, {spec.family for spec in specs.values()})
    _check_known("tag", tag, {each for spec in specs.values() for each in spec.tags})
    return [
        name
        for name in models.names(*patterns, exclude=exclude)
        if family in (None, specs[name].family)
        and (tag is None or tag in specs[name].tags)
        and not (pretrained and not _loadable(specs[name].weights))
    ]


def list_families() -> list[str]:
    """Return the names of the model families."""
    return sorted({models[name].spec.family for name in models.names()})


def _loadable(weights: tuple[PublishedWeights, ...]) -> bool:
    """Return whether `weights="imagenet"` loads the first of these weights; torchvision publishes pickles only."""
    return bool(weights) and not weights[0].source.startswith("torchvision/")


def _check_known(option: str, value: str | None, known: set[str]) -> None:
    if value is not None and value not in known:
        raise UnknownName(
            f"Expected the {option} of a model. Received: {option}={value!r}. {did_you_mean(value, known)}"
        )
