"""Published weights of an architecture, and the layer names of the libraries that published them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any

from zoo.specs.preprocessing import IMAGENET, PreprocessingConfig

TIMM_RESULTS = "timm, results-imagenet.csv"
TORCHVISION_RESULTS = "torchvision, weight metadata"
KERAS_RESULTS = "keras.io/api/applications"
# The 1000 classes of ILSVRC 2012 in the order of their WordNet ids, which all libraries share.
IMAGENET_1K = "imagenet-1k"
# Licenses as timm 1.0.31 records them for its checkpoints, and as keras.io/api/applications states them.
APACHE, BSD, MIT, CC_BY = "apache-2.0", "bsd-3-clause", "mit", "cc-by-4.0"
# Where Keras downloads from; `keras.applications` has the names of the files and their digests.
KERAS_STORE = "https://storage.googleapis.com/tensorflow/keras-applications"


@dataclasses.dataclass(frozen=True)
class PublishedWeights:
    """One set of published ImageNet weights.

    Args:
        source: "timm/<model>.<tag>" on the Hugging Face hub, "keras/<class>" of keras.applications, or
            "torchvision/<weights>", a pickle that the zoo never opens.
        top1: published top-1 accuracy on the ImageNet validation set, percent.
        size: image height and width in pixels at which `top1` was measured.
        preprocessing: preprocessing that the weights expect; None if it is not known.
        license: SPDX identifier of the license of the weights, None if it is not known.
        revision: commit of the hub's repository, None for the newest.
        sha256: SHA-256 of the file in hexadecimal, None if the library that publishes it does not state it. (The hub
            sends it with each file; torchvision puts the first eight digits into the name of the file.)
        md5: MD5 of the file in hexadecimal, which most files of keras.applications have instead.
        url: address of the file, None for the hub's.
        labels: the data set that gives the classes their names and order, None if it is not known.
        reference: where `top1` is published; by default the results table of the source.
    """

    source: str
    top1: float
    size: int = 224
    preprocessing: PreprocessingConfig | None = IMAGENET
    license: str | None = None
    revision: str | None = None
    sha256: str | None = None
    md5: str | None = None
    url: str | None = None
    labels: str | None = IMAGENET_1K
    reference: str = ""

    def __post_init__(self) -> None:
        tables = {"timm": TIMM_RESULTS, "torchvision": TORCHVISION_RESULTS, "keras": KERAS_RESULTS}
        object.__setattr__(self, "reference", self.reference or tables[self.source.partition("/")[0]])

    @property
    def bgr(self) -> bool:
        """Whether the first convolution expects BGR; loading reverses it to RGB."""
        return self.preprocessing is not None and self.preprocessing.channel_order == "bgr"

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON-safe values."""
        return dataclasses.asdict(self) | {"preprocessing": self.preprocessing and self.preprocessing.to_json()}


@dataclasses.dataclass(frozen=True)
class NameMapping:
    """Rules that map our layer names to those of another library.

    A rule is a pair (pattern, template). The first pattern that matches the whole of our layer's name applies.
    `{0}` in a template is the first group of the pattern; a number can be shifted, as in `{1:-1}`.

    Args:
        rules: pairs of a pattern for our names and a template for theirs.
        ignored: patterns of their keys that our model does not use, such as auxiliary classifiers.
        arguments: options with which our model computes the same outputs as theirs; the user's options override them.
        renamed: pairs of a pattern and a replacement for the start of their keys, applied in order, for files that name
            one model in several ways.
        joined: (pattern, replacement, parts): their modules that match the pattern, with one of the parts as its last
            group, are one module here, with their outputs side by side.
        open: their files leave all options open but `arguments` and what they state themselves.
        headless: a file may be without the last layer, which then starts at random.
    """

    rules: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    renamed: tuple[tuple[str, str], ...] = ()
    joined: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    open: bool = False
    headless: bool = False

    def rename(self, layer: str) -> str | None:
        """Return their name of our layer, or None if no rule matches."""
        for pattern, template in self.rules:
            match = re.fullmatch(pattern, layer)
            if match:
                return template.format(*map(_Group, match.groups()))
        return None

    def coverage(self, names: Collection[str]) -> float:
        """Return the fraction of their names that the rules can produce."""
        patterns = [re.compile(r"[\w]+".join(map(re.escape, re.split(r"\{[^}]*\}", t)))) for _, t in self.rules]
        return sum(any(p.fullmatch(name) for p in patterns) for name in names) / max(len(names), 1)

    def produces(self, name: str) -> bool:
        """Return whether a rule can produce one of their names."""
        return self.coverage([name]) > 0

    def ignores(self, key: str) -> bool:
        """Return whether a key of theirs is ignored."""
        return any(re.fullmatch(pattern, key) for pattern in self.ignored)


class _Group(str):
    """A matched group; a format such as "-1" shifts its number: "{0:-1}" of "3" is "2"."""

    def __format__(self, shift: str) -> str:
        return str(int(self) + int(shift)) if shift else str(self)
