"""What a format is: how it is written, how its real runtime loads it, and how far it may be from its source."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from export.core.guarantees import GUARANTEES
from export.core.options import Options, changed, read_options, slug_of, split_name, written
from zoo.common.errors import BadOption, UnsupportedExport
from zoo.specs.registry import Registry

if TYPE_CHECKING:
    import numpy as np


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far an artifact may be from its source before it is refused.

    Args:
        relative: largest difference of a logit, as a share of the source's largest logit.
        agreement: least share of answers with the same top-1.
        drop: most accuracy that may be lost, as a fraction.
    """

    relative: float
    agreement: float
    drop: float

    def within(self, points: float | None) -> Tolerance:
        """Return what is allowed where a user has set how many points of accuracy may be lost, None for the format's.

        A format that may lose nothing is float, and equal or broken. Who allows more to be lost allows as many more
        answers to differ.
        """
        if points is None or not self.drop:
            return self
        more = max(0.0, points / 100 - self.drop)
        return dataclasses.replace(self, drop=points / 100, agreement=max(0.0, self.agreement - more))

    def of_sequences(self) -> Tolerance:
        """Return what is allowed of a network that writes sequences.

        With integers, a token for which attention went elsewhere has other logits altogether; agreement says how many
        may.
        """
        return self if self in (FLOAT, HALF) else dataclasses.replace(self, relative=1.0)


FLOAT = Tolerance(relative=1e-4, agreement=1.0, drop=0.0)
# Of 360 images one answer may turn.
HALF = Tolerance(relative=1e-2, agreement=0.995, drop=0.003)
# The relative bound only catches a broken file, for one example in a thousand is off by a quarter where attention is
# undecided; agreement and accuracy are what integers are judged by.
INTEGER = Tolerance(relative=0.5, agreement=0.97, drop=0.006)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One input or output of an artifact; sizes that are free are None."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


@dataclasses.dataclass(frozen=True)
class Backend:
    """How a format keeps a model.

    Args:
        file: what `write` writes inside the artifact's folder; "" if that is several files.
        write: `write(source, path)`, or `write(source, path, options)` for a format with options, writes an
            `export.source.source.Source` to a path, the folder itself for several files; runs in a child process.
        load: loads a path into its runtime, `load(path, threads=None)`.
        tolerance: how far the artifact may be from its source.
    """

    file: str
    write: Callable[..., None]
    load: Callable[..., Runtime]
    tolerance: Tolerance


@dataclasses.dataclass(frozen=True)
class Format(Backend):
    """One way to ship a model.

    Args:
        name: what users ask for.
        summary: one line for people.
        generate: how it keeps a network that writes sequences, if it can.
        options: a frozen dataclass, whose fields are its options.
        claims: what its name promises of every artifact, names of `export.core.guarantees.GUARANTEES`; looked up in it.
        rules: what is known to fail, see `export.core.precheck`; each yields reasons, `rule(source, wanted)`.
        packages: the modules it is made and run with, for `zoo doctor`.
    """

    name: str
    summary: str
    generate: Backend | None = None
    options: type[Options] = Options
    guarantees: tuple[str, ...] = ()
    rules: tuple[Callable[..., Iterator[str]], ...] = ()
    packages: tuple[str, ...] = ("tensorflow",)

    @property
    def missing(self) -> str:
        """The first of its packages that is not installed, "" if all are."""
        absent = (name for name in self.packages if importlib.util.find_spec(name) is None)
        return next(absent, "")

    def way(self, task: str) -> Backend:
        """Return how it keeps a network of a task.

        Raises:
            UnsupportedExport: it cannot.
        """
        if task != "generate":
            return self
        if self.generate is None:
            raise UnsupportedExport(f"{self.name} cannot keep a network that writes sequences. Received: task={task!r}")
        return self.generate


@dataclasses.dataclass(frozen=True)
class FormatRequest:
    """A format with options, as a user asks for it.

    Args:
        format: which.
        options: an instance of its dataclass.
        max_drop: how many points of accuracy it may lose, None for what the format states.
    """

    format: Format
    options: Options
    max_drop: float | None = None

    def __post_init__(self) -> None:
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise BadOption(f"max_drop must be from 0 to 100 points. Received: max_drop={self.max_drop:g}")

    @property
    def text(self) -> str:
        """How it is written: "tflite_int8:batch=4"; the name alone where all options are the defaults."""
        told = ",".join(f"{key}={written(value)}" for key, value in changed(self.options).items())
        return f"{self.format.name}:{told}" if told else self.format.name

    @property
    def slug(self) -> str:
        """Name of its folder: "tflite_int8+batch=4"; the name alone where all options are the defaults."""
        return self.format.name + slug_of(self.options)


def parse_format(text: str, max_drop: float | None = None) -> FormatRequest:
    """Return the format and the options that a text like "tflite_int8:batch=4,input=uint8" asks for.

    Raises:
        UnknownName: no such format.
        BadOption: an option that it does not have, or a value that cannot be.
    """
    name, rest = split_name(text)
    fmt = formats[name]
    return FormatRequest(fmt, read_options(name, rest, fmt.options), max_drop)


def name_input(name: str, shape: Sequence[int]) -> str:
    """Return what an artifact calls the input of a network: one of features may well be given images."""
    return "image" if name == "features" and len(shape) == 3 else name


# What comes out of a network of a task, where that is no logits.
OUTPUTS = {"generate": "tokens", "regress": "values"}


def describe(model: str, task: str, given: tuple[str, str, tuple[int, ...]], labels: Sequence[str]) -> dict[str, Any]:
    """Return the facts of a network that go into its artifacts.

    Args:
        model: its name.
        task: its task.
        given: name, dtype and shape of its input; the shape has both lengths where a sequence is written.
        labels: names of the classes, tags, labels or targets.
    """
    name, dtype, shape = given
    output = OUTPUTS.get(task, "logits")
    facts = {"model": model, "task": task, "input": name, "dtype": dtype, "output": output}
    return facts | {"shape": list(shape), "labels": list(labels)}


class Runtime:
    """A loaded artifact: one callable for every format.

    Attributes:
        inputs: the artifact's inputs.
        outputs: the artifact's outputs.
        batch: its batch size, None where it is free.
        metadata: what `write` put into the artifact itself, None if nothing was found.
        library: the module that has to be imported to run it, "" if none; cold starts tell it from loading.
        needs: our modules that somebody else has to import before the artifact opens, none for most.
    """

    library: str = ""
    needs: tuple[str, ...] = ()
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batch: int | None
    metadata: dict[str, Any] | None

    def __call__(self, inputs: Any) -> np.ndarray:
        """Return float32 logits (n, classes) of raw values (n, *shape), pixels from 0 to 255 or int32 ids.

        Those of a network that gives numbers are values (n, targets) in the data's own units; of one that tags they are
        (n, length, classes); for one that writes, see `export.core.generate.Generator`.
        """
        raise NotImplementedError

    def classify_bytes(self, images: list[bytes]) -> np.ndarray | None:
        """Return float32 logits of encoded images; None where the artifact takes no such input."""
        return None

    def classify_strings(self, texts: list[str]) -> np.ndarray | None:
        """Return float32 logits of texts; None where the artifact takes no such input."""
        return None

    def step(self, inputs: Any) -> None:
        """Run the artifact once on raw values of exactly its batch size; a network that writes, on one sequence."""
        raise NotImplementedError


formats: Registry[Format] = Registry("format", "export.formats", "zoo.formats")


def register(
    name: str,
    *,
    summary: str,
    generate: Backend | None = None,
    options: type[Options] = Options,
    **more: Any,
) -> None:
    """Register a format; for the arguments see `Format` and `Backend`, whose own are all needed.

    Raises:
        DuplicateName: the name is taken.
        BadOption: the options are no dataclass that derives from `Options`, one of them has no default, or there is no
            such claim.
    """
    if not issubclass(options, Options) or any(_required(field) for field in dataclasses.fields(options)):
        raise BadOption(
            f"The options of {name} must be a dataclass that derives from export.Options and has defaults. "
            f"Received: options={options.__name__}"
        )
    unknown = sorted(set(more.get("claims", ())) - GUARANTEES.keys())
    if unknown:
        raise BadOption(f"{name} can claim {', '.join(GUARANTEES)}. Received: claims={unknown}")
    fmt = Format(name=name, summary=summary, generate=generate, options=options, **more)
    formats.add(name, fmt, fmt.write.__module__)


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
