"""The registry class of models, datasets, recipes, formats and compressions; and model specs."""

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
from zoo.specs.published import NameMapping, PublishedWeights
from zoo.specs.tasks import task_of

T = TypeVar("T")


def natural(name: str) -> list[Any]:
    """Return a sort key that puts resnet18 before resnet101."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


class Registry(Generic[T]):
    """Entries by name, discovered in one package (by location) and in installed entry points (by group).

    Args:
        kind: the kind of entry as error messages call it ("model").
        package: a package; its modules without a leading underscore register their entries on import.
        group: an entry-point group; its entries register themselves when loaded.
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
        """Register an entry.

        Args:
            name: its name.
            entry: the entry.
            origin: the module that defines it, if it is more than data.

        Raises:
            DuplicateName: the name is already registered.
        """
        if not origin.startswith(f"{self._package}."):
            # The package's own entries come first, so that a plug-in with a duplicate name gets the error.
            self._discover()
        if name in self._entries:
            raise DuplicateName(
                f"Expected a {self.kind} name that is not registered already. Received: name={name!r}. "
                "Choose another name."
            )
        self._entries[name] = entry
        if origin:
            self._origins[name] = origin

    def origins(self) -> set[str]:
        """Return the modules that define the entries; another process imports them to register the same entries."""
        return set(self._origins.values())

    def origin(self, name: str) -> str:
        """Return the module that defines an entry, "" if unknown."""
        self._discover()
        return self._places.get(name, self._origins.get(name, ""))

    def __getitem__(self, name: str) -> T:
        """Return the entry of `name`; raises UnknownName with the nearest name."""
        self._discover()
        try:
            return self._entries[name]
        except (KeyError, TypeError):
            hint = did_you_mean(str(name or ""), self._entries)
            raise UnknownName(f"Expected the name of a {self.kind}. Received: name={name!r}. {hint}") from None

    def __contains__(self, name: object) -> bool:
        self._discover()
        return name in self._entries

    def names(self, *patterns: str, exclude: str | Iterable[str] = ()) -> list[str]:
        """Return the names that match one of `patterns` (shell wildcards; all if none) and none of `exclude`."""
        self._discover()
        excluded = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        return sorted(
            (n for n in self._entries if _matches(n, patterns or ("*",)) and not _matches(n, excluded)), key=natural
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
        """Load a module and record the names that it registers."""
        before = set(self._entries)
        load(module)
        self._places |= dict.fromkeys(self._entries.keys() - before, module)

    def _load_entry_points(self) -> None:
        from importlib.metadata import entry_points

        for entry in entry_points(group=self._group):
            try:
                self._import(entry.module, lambda _, entry=entry: entry.load())
            except Exception as error:
                # A broken plug-in must not break the registry for everyone else.
                warnings.warn(f"The {self.kind} plug-in {entry.value!r} did not load: {error}", stacklevel=2)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether one of the wildcard patterns matches the name."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """Description of a model that needs no build; JSON-safe, and recomputed by the tests.

    `gmacs` and `feature_info` are properties because they are counted.

    Args:
        input_shape: default shape of one input, without the batch: (height, width, channels), (features,), (length,)
            of token ids, or (source length, target length).
        classes: default number of classes; the vocabulary size of a sequence-to-sequence model; the width of vectors.
        min_size: smallest image height and width in pixels (0 if the input is no image).
        paper: the publication of the architecture.
        tags: words to filter by.
        preprocessing: the published preprocessing, used unless the data sets its own.
        unsupported: pairs (format, reason) of unsupported exports.
        name: the registered name.
        family: the module that defines it.
        params: trainable parameters at the default input and classes.
        input_dtype: dtype of the input.
        weights: published weights, the best first; `weights="imagenet"` loads the first.
        vocabulary: default number of tokens, 0 if the input is no text.
        task: "classify" for one prediction per input, logits (n, classes); "embed" for one vector per input, (n,
            classes), unless classes= or heads= asks for logits; "tag" for one prediction per token, (n, length,
            classes); "generate" for sequence-to-sequence, (n, target length, vocabulary).
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
    weights: tuple[PublishedWeights, ...] = ()
    vocabulary: int = 0
    task: str = "classify"

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs: "image", "features" or "ids"; "source" and "target" of a sequence-to-sequence model."""
        if task_of(self.task).generates:
            return ("source", "target")
        return ("ids" if self.vocabulary else "image" if len(self.input_shape) == 3 else "features",)

    @property
    def gmacs(self) -> float:
        """Multiply-adds of one input in billions, from the recorded counts; a plug-in's model is built to count it."""
        return self._counts()["gmacs"]

    @property
    def feature_info(self) -> tuple[dict[str, Any], ...]:
        """Feature maps that `zoo.features` returns, from the finest to the coarsest; counted like `gmacs`.

        Each has "level" (the index for `zoo.features`), "layer" (the layer that outputs the map), "stride" (pixels of
        the image per pixel of the map, a power of two) and "channels".
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
            # Four bytes for each parameter; the libraries do not state the sizes of their files.
            "weights": [entry.to_json() | {"megabytes": round(4e-6 * self.params, 1)} for entry in self.weights],
        }
        first = ("name", "family", "params", "input_shape", "input_dtype", "classes")
        return {key: values[key] for key in (*first, *(k for k in values if k not in first))}


@dataclasses.dataclass(frozen=True)
class Model:
    """A registered model.

    Args:
        spec: its spec.
        build: its builder.
        arguments: the builder's options that make this variant.
        name_mappings: mappings to other libraries' layer names, by library: "torchvision", "timm",
            "transformers" or "keras".
    """

    spec: ModelSpec
    build: Callable[..., Any]
    arguments: dict[str, Any]
    name_mappings: Mapping[str, NameMapping] = dataclasses.field(default_factory=dict)


models: Registry[Model] = Registry("model", "zoo.models", "zoo.models")


# Keyword arguments of `zoo.get` and `zoo.features`: an option of a family cannot have one of these names.
ARGUMENTS = (
    "name",
    "classes",
    "heads",
    "input_shape",
    "include_top",
    "weights",
    "classifier_activation",
    "dtype",
    "preprocessing",
    "cache_dir",
)
RESERVED = frozenset((*ARGUMENTS, "levels", "kind"))


def register(
    name: str,
    like: ModelSpec,
    *,
    params: int,
    family: str = "",
    weights: Sequence[PublishedWeights] = (),
    name_mappings: Mapping[str, NameMapping] | None = None,
    **arguments: Any,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register one variant of the decorated builder.

    A builder takes the input tensor and the head (see `zoo.layers.heads.Head`), then keyword options, and returns
    `head(features)`. `zoo.get(name, option=…)` accepts the options that `arguments` does not set.

    Args:
        name: the variant's name.
        like: the spec that all variants of a family share; `register` fills in name, family, params and weights.
        params: trainable parameters at the default input and classes.
        family: the family's name; the builder's module by default.
        weights: published weights of this variant, the best first.
        name_mappings: mappings to other libraries' layer names, by library.
        **arguments: the builder's options that make this variant.

    Returns:
        The decorator; it returns the builder unchanged.

    Raises:
        DuplicateName: the name is already registered.
        BadOption: an option has the name of an argument of `zoo.get` or `zoo.features`.
    """

    def decorate(build: Callable[..., Any]) -> Callable[..., Any]:
        conflicts = RESERVED & (arguments.keys() | inspect.signature(build).parameters.keys())
        if conflicts:
            raise BadOption(
                "Expected options without the names of zoo.get's own arguments. "
                f"Received: {sorted(conflicts)}. Rename them."
            )
        spec = dataclasses.replace(
            like,
            name=name,
            family=family or build.__module__.rpartition(".")[2],
            params=params,
            weights=tuple(weights),
        )
        models.add(name, Model(spec, build, arguments, name_mappings or {}), build.__module__)
        return build

    return decorate
