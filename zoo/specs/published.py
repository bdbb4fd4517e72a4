"""What others published for an architecture: trained weights, and how their files name what ours calls otherwise."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any

from zoo.specs.preprocessing import IMAGENET, PreprocessingConfig

TIMM_RESULTS = "timm, results-imagenet.csv"
TORCHVISION_RESULTS = "torchvision, weight metadata"
KERAS_RESULTS = "keras.io/api/applications"


@dataclasses.dataclass(frozen=True)
class Weights:
    """One set of published ImageNet weights.

    Args:
        source: where they are: "timm/<model>.<tag>" on the Hugging Face hub, "keras/<class>" of keras.applications,
            or "torchvision/<weights>", which are pickles that nobody here opens.
        top1: published top-1 accuracy on the ImageNet validation set, percent.
        size: height and width in pixels that `top1` was measured at.
        preprocessing: what the weights expect their pixels to have gone through.
        bgr: the first convolution expects blue first; it is turned round on loading, so that ours takes RGB.
        reference: where `top1` is stated; by default the table of the source.
    """

    source: str
    top1: float
    size: int = 224
    preprocessing: PreprocessingConfig = IMAGENET
    bgr: bool = False
    reference: str = ""

    def __post_init__(self) -> None:
        tables = {"timm": TIMM_RESULTS, "torchvision": TORCHVISION_RESULTS, "keras": KERAS_RESULTS}
        object.__setattr__(self, "reference", self.reference or tables[self.source.partition("/")[0]])

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON-safe values."""
        return dataclasses.asdict(self) | {"preprocessing": self.preprocessing.to_json()}


@dataclasses.dataclass(frozen=True)
class NameMapping:
    """How the layers of one library's network are called, told by rules.

    A rule is a pair (pattern, template): the first pattern that matches the whole of our layer's name gives theirs.
    `{0}` in a template is the first group of the pattern; a number may be shifted, as in `{1:-1}`.

    Args:
        rules: our names to theirs.
        ignored: patterns of their keys that our network has no use for, such as auxiliary classifiers.
        arguments: options that make our network compute what theirs does; used unless the user sets them.
    """

    rules: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def rename(self, layer: str) -> str | None:
        """Return their name of our layer; None if no rule covers it."""
        for pattern, template in self.rules:
            match = re.fullmatch(pattern, layer)
            if match:
                return template.format(*map(_Group, match.groups()))
        return None

    def coverage(self, names: Collection[str]) -> float:
        """Return the share of their names that some rule can lead to."""
        patterns = [re.compile(r"[\w]+".join(map(re.escape, re.split(r"\{[^}]*\}", t)))) for _, t in self.rules]
        return sum(any(p.fullmatch(name) for p in patterns) for name in names) / max(len(names), 1)

    def ignores(self, key: str) -> bool:
        """Tell whether a key of theirs is left out on purpose."""
        return any(re.fullmatch(pattern, key) for pattern in self.ignored)


class _Group(str):
    """A matched group; a signed number as its format shifts it: "{0:-1}" of "3" is "2"."""

    def __format__(self, shift: str) -> str:
        return str(int(self) + int(shift)) if shift else str(self)
