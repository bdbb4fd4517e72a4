"""One kind of registry for models, datasets, recipes and formats; and what is known of a model without building it."""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
import inspect
import pkgutil
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from zoo.common.errors import BadOption, DuplicateName, UnknownName, did_you_mean
from zoo.specs.counts import counts_of
from zoo.specs.preprocessing import PreprocessingConfig
from zoo.specs.published import NameMapping, Weights

T = TypeVar("T")


def natural(name: str) -> list[Any]:
    """Return a sort key that puts resnet18 before resnet101."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


class Registry(Generic[T]):
    """Names and what they stand for, found by looking into a package and at installed entry points.

    Args:
        kind: what is registered, in the words of error messages ("model").
        package: a package whose modules without an underscore register themselves when imported.
        group: an entry-point group whose entries, when loaded, register themselves.
    """

    def __init__(self, kind: str, package: str, group: str | None = None) -> None:
        self.kind = kind
        self._package = package
        self._group = group
        self._entries: dict[str, T] = {}
        self._origins: dict[str, str] = {}
        self._places: dict[str, str] = {}
        self._discovered = self._discovering = False

    def add(self, name: str, entry: T, origin: str = "") -> None:
        """Register `entry` under `name`; `origin` is the module that defines it, if it is more than data.

        Raises:
            DuplicateName: the name is taken.
        """
        if not origin.startswith(f"{self._package}."):
            # Our own names come first, so that it is the newcomer who hears of a clash.
            self._discover()
        if name in self._entries:
            raise DuplicateName(
                f"Each {self.kind} needs a name of its own. Received: name={name!r}, which is registered already. "
                "Choose another name."
            )
        self._entries[name] = entry
        if origin:
            self._origins[name] = origin

    def origins(self) -> set[str]:
        """Return the modules that the entries so far come from; another process imports them to have the same."""
        return set(self._origins.values())

    def origin(self, name: str) -> str:
        """Return the module that an entry comes from, "" where that is not known."""
        self._discover()
        return self._places.get(name, self._origins.get(name, ""))

    def __getitem__(self, name: str) -> T:
        """Return the entry of `name`, or raise UnknownName with the nearest one."""
        self._discover()
        try:
            return self._entries[name]
        except (KeyError, TypeError):
            raise UnknownName(
                f"Expected the name of a {self.kind}. Received: name={name!r}. {did_you_mean(str(name), self._entries)}"
            ) from None

    def __contains__(self, name: object) -> bool:
        self._discover()
        return name in self._entries

    def names(self, *patterns: str, exclude: str | Iterable[str] = ()) -> list[str]:
        """Return the names that match any of `patterns` (shell wildcards; all if none) and none of `exclude`."""
        self._discover()
        unwanted = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        return sorted(
            (n for n in self._entries if _matches(n, patterns or ("*",)) and not _matches(n, unwanted)), key=natural
        )

    def _discover(self) -> None:
        if self._discovered or self._discovering:
            return
        self._discovering = True
        try:
            self._import_all()
            self._discovered = True
        finally:
            self._discovering = False

    def _import_all(self) -> None:
        """Import the content modules and load the entry points."""
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                self._import(f"{self._package}.{module.name}", importlib.import_module)
        if self._group:
            self._load_entry_points()

    def _import(self, module: str, load: Callable[[str], Any]) -> None:
        """Load a module, and keep which names came with it."""
        before = set(self._entries)
        load(module)
        self._places |= dict.fromkeys(self._entries.keys() - before, module)

    def _load_entry_points(self) -> None:
        from importlib.metadata import entry_points

        for entry in entry_points(group=self._group):
            try:
                self._import(entry.module, lambda _, entry=entry: entry.load())
            except Exception as error:
                # One broken plug-in must not take the zoo away from everyone else.
                warnings.warn(f"The {self.kind} plug-in {entry.value!r} did not load: {error}", stacklevel=2)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether any of the wildcard patterns matches the name."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """What is known of a model without building it; JSON-safe, and recomputed by the tests.

    What is counted rather than stated, `gmacs` and `feature_info`, are properties.

    Args:
        input_shape: default shape of one input, without the batch: (height, width, channels), (features,), (length,)
            of token ids, or (source length, target length).
        classes: default number of classes; of a network that writes a sequence, the vocabulary.
        min_size: smallest height and width of an image (0 where the input is no image).
        paper: where the architecture was published.
        tags: words to find it by.
        preprocessing: the published contract, used unless the data states its own.
        unsupported: pairs (format, reason) of exports that this model cannot have.
        name: the registered name.
        family: the file it comes from.
        params: trainable parameters at the default input and classes.
        input_dtype: dtype of the input.
        weights: published weights, the best first: `weights="imagenet"` stands for it.
        vocabulary: tokens that it knows by default, 0 where the input is no text.
        task: "classify" for one answer to an input, logits (n, classes); "tag" for one to each token, (n, length,
            classes); "generate" for a sequence written from another, (n, target length, vocabulary).
    """

    input_shape: tuple[int, ...]
    classes: int
    min_size: int = 0
    paper: str = ""
    tags: tuple[str, ...] = ()
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    unsupported: tuple[tuple[str, str], ...] = ()
    name: str = ""
    family: str = ""
    params: int = 0
    input_dtype: str = "float32"
    weights: tuple[Weights, ...] = ()
    vocabulary: int = 0
    task: str = "classify"

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs: "image", "features" or "ids", or "source" and "target" of a sequence to write."""
        if self.task == "generate":
            return ("source", "target")
        return ("ids" if self.vocabulary else "image" if len(self.input_shape) == 3 else "features",)

    @property
    def gmacs(self) -> float:
        """Multiply-adds of one input in billions, read from what was counted once; a plug-in's model is built."""
        return self._counts()["gmacs"]

    @property
    def feature_info(self) -> tuple[dict[str, Any], ...]:
        """What `zoo.features` returns, from the finest to the coarsest; where it is known from, see `gmacs`.

        Each has "level" (the number that `zoo.features` takes), "layer" (the layer that made the map), "stride" (of
        a pixel of the map in pixels of the image, as a power of two) and "channels".
        """
        return tuple(self._counts()["features"])

    def _counts(self) -> dict[str, Any]:
        return counts_of(self)

    def to_json(self) -> dict[str, Any]:
        """Return the spec as JSON-safe values, its name first."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values |= {
            "input_shape": list(self.input_shape),
            "tags": list(self.tags),
            "preprocessing": self.preprocessing.to_json(),
            "unsupported": dict(self.unsupported),
            "weights": [entry.to_json() for entry in self.weights],
        }
        first = ("name", "family", "params", "input_shape", "input_dtype", "classes")
        return {key: values[key] for key in (*first, *(k for k in values if k not in first))}


@dataclasses.dataclass(frozen=True)
class Model:
    """A registered model.

    Args:
        spec: what is known of it.
        build: the function that builds it.
        arguments: those that make it this variant.
        layouts: how other libraries name its layers, by library: "torchvision", "timm" or "keras".
    """

    spec: ModelSpec
    build: Callable[..., Any]
    arguments: dict[str, Any]
    name_mappings: Mapping[str, NameMapping] = dataclasses.field(default_factory=dict)


models: Registry[Model] = Registry("model", "zoo.models", "zoo.models")


# What `zoo.get` takes itself; no family can have an option of such a name.
RESERVED = {"name", "classes", "heads", "input_shape", "include_top", "weights", "classifier_activation", "dtype"}


def register(
    name: str,
    like: ModelSpec,
    *,
    params: int,
    family: str = "",
    weights: Sequence[Weights] = (),
    name_mappings: Mapping[str, NameMapping] | None = None,
    **arguments: Any,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register one variant of the decorated builder.

    A builder takes the input tensor and the head (see `zoo.layers.heads.Head`), then keyword options, and returns
    `head(features)`. The options not fixed by `arguments` are what `zoo.get(name, option=…)` accepts.

    Args:
        name: the variant's name.
        like: what the variants of a family share; name, family and params are filled in.
        params: trainable parameters at the default input and classes.
        family: the family's name; the builder's module by default.
        weights: published weights of this variant, the best first.
        layouts: how other libraries name the layers, by library.
        **arguments: options that make the variant.

    Returns:
        The decorator; it returns the builder unchanged.

    Raises:
        DuplicateName: the name is taken.
        BadOption: an option has the name of an argument of `zoo.get`.
    """

    def decorate(build: Callable[..., Any]) -> Callable[..., Any]:
        taken = RESERVED & (arguments.keys() | inspect.signature(build).parameters.keys())
        if taken:
            raise BadOption(f"zoo.get has arguments of its own of these names. Received: {sorted(taken)}. Rename them.")
        found = family or build.__module__.rpartition(".")[2]
        spec = dataclasses.replace(like, name=name, family=found, params=params, weights=tuple(weights))
        models.add(name, Model(spec, build, arguments, name_mappings or {}), build.__module__)
        return build

    return decorate
