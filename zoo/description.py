"""Descriptions of models, as JSON-safe values and as text."""

from __future__ import annotations

from typing import Any

from zoo.specs.registry import models


def describe(name: str, formats: list[str]) -> dict[str, Any]:
    """Return the description of a model, JSON-safe.

    Args:
        name: a registered name, or timm's "model.tag".
        formats: names of all export formats.

    Returns:
        The spec, the counts (see `zoo.summary.summarize`), "options" of `zoo.get` with their defaults, and the
        supported "formats".
    """
    from zoo.build import default_options, options_of
    from zoo.counts import counts
    from zoo.weights.references import split_tag

    name = (split_tag(name) or (name,))[0] if name not in models else name
    model = models[name]
    fixed = default_options(model)
    defaults = {n: fixed.get(n, p.default) for n, p in options_of(model).items()}
    unsupported = dict(model.spec.unsupported)
    return model.spec.to_json() | {
        **counts(name),
        "options": {n: list(v) if isinstance(v, tuple) else v for n, v in defaults.items()},
        "formats": [fmt for fmt in formats if fmt not in unsupported],
    }


def size(shape: Any) -> str:
    """Return a shape as text, such as 224x224x3."""
    return "x".join("?" if n is None else str(n) for n in shape)


def layers_text(layers: dict[str, int], separator: str = ", ") -> str:
    """Return the layers of a stage as text, the most frequent first, such as "9 Conv2D, 3 Add"."""
    ordered = sorted(layers.items(), key=lambda item: -item[1])
    return separator.join(f"{count} {layer}" for layer, count in ordered)


def macs_unit(gmacs: float) -> tuple[str, float]:
    """Return the unit for a model of this many GMACs, and the number of such units per GMAC."""
    units = (("GMACs", 1.0), ("MMACs", 1e3), ("kMACs", 1e6))
    return next(((unit, per) for unit, per in units if gmacs * per >= 0.1), units[-1])
