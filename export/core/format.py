"""The interface of an export format: how a model is converted, loaded in its runtime, and compared with its source.

To add a format, write one file in `export/formats` that calls `register`; see there.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

from export.core.guarantees import GUARANTEES
from export.core.options import Options, changed_options, format_value, options_slug, parse_options, split_name
from export.core.runtime import Runtime
from export.core.tolerance import Tolerance
from zoo.common.errors import BadOption, UnsupportedExport
from zoo.specs.registry import Registry
from zoo.specs.tasks import task_of


@dataclasses.dataclass(frozen=True)
class Backend:
    """How a format stores and runs a model.

    Args:
        file: the file that `write` creates in the artifact's folder; "" if there are several.
        write: `write(source, path)`, or `write(source, path, options)` for a format with options: converts an
            `export.source.source.SourceModel` to a path (the folder itself if `file` is ""); runs in a child process.
        load: `load(path, threads=None)` returns a `Runtime`.
        tolerance: how far the artifact may be from its source model.
    """

    file: str
    write: Callable[..., None]
    load: Callable[..., Runtime]
    tolerance: Tolerance


@dataclasses.dataclass(frozen=True)
class Format(Backend):
    """An export format.

    Args:
        name: what users ask for.
        summary: one line for `zoo formats`.
        generate: the backend for sequence-to-sequence models; None if the format does not support them.
        options: a frozen dataclass with the format's options.
        guarantees: names of `export.core.guarantees.GUARANTEES` that are checked in every artifact.
        rules: checks before conversion, see `export.core.precheck`; `rule(source, request)` yields reasons to refuse.
        packages: the modules that the format needs, for `zoo doctor`.
        loops: whether it has the loops of recurrent layers; if not, their steps are unrolled.
        any_input: whether inputs may be strings, and other sizes than the batch free.
    """

    name: str
    summary: str
    generate: Backend | None = None
    options: type[Options] = Options
    guarantees: tuple[str, ...] = ()
    rules: tuple[Callable[..., Iterator[str]], ...] = ()
    packages: tuple[str, ...] = ("tensorflow",)
    loops: bool = True
    any_input: bool = False

    @property
    def missing(self) -> str:
        """The first of its packages that is not installed, "" if all are."""
        absent = (name for name in self.packages if importlib.util.find_spec(name) is None)
        return next(absent, "")

    def backend(self, task: str) -> Backend:
        """Return the backend for a task.

        Raises:
            UnsupportedExport: the format does not support the task.
        """
        if not task_of(task).generates:
            return self
        if self.generate is None:
            raise UnsupportedExport(
                f"{self.name} does not support sequence-to-sequence models. Received: task={task!r}"
            )
        return self.generate


@dataclasses.dataclass(frozen=True)
class FormatRequest:
    """A format with options, as a user asks for it.

    Args:
        format: which.
        options: an instance of its options dataclass.
        max_drop: allowed loss of accuracy in points; None for the format's own tolerance.
    """

    format: Format
    options: Options
    max_drop: float | None = None

    def __post_init__(self) -> None:
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise BadOption(f"max_drop must be from 0 to 100 points. Received: max_drop={self.max_drop:g}")

    @property
    def text(self) -> str:
        """The request as users write it: "tflite_int8:batch=4", or the name alone if all options are the defaults."""
        changed = ",".join(f"{key}={format_value(value)}" for key, value in changed_options(self.options).items())
        return f"{self.format.name}:{changed}" if changed else self.format.name

    @property
    def slug(self) -> str:
        """Name of the artifact's folder: "tflite_int8+batch=4", or the name alone if all options are the defaults."""
        return self.format.name + options_slug(self.options)


def parse_format(text: str, max_drop: float | None = None) -> FormatRequest:
    """Return the format and the options of a text such as "tflite_int8:batch=4,input=uint8".

    Raises:
        UnknownName: no such format.
        BadOption: an unknown option, or an invalid value.
    """
    name, rest = split_name(text)
    fmt = formats[name]
    return FormatRequest(fmt, parse_options(name, rest, fmt.options), max_drop)


formats: Registry[Format] = Registry("format", "export.formats", "zoo.formats")


def register(
    name: str,
    *,
    summary: str,
    generate: Backend | None = None,
    options: type[Options] = Options,
    **more: Any,
) -> None:
    """Register a format; `more` are the other fields of `Format` and `Backend`.

    Raises:
        DuplicateName: the name is taken.
        BadOption: the options are no dataclass that derives from `Options`, an option has no default, or a guarantee is
            unknown.
    """
    if not issubclass(options, Options) or any(_required(field) for field in dataclasses.fields(options)):
        raise BadOption(
            f"The options of {name} must be a dataclass that derives from export.Options and has defaults. "
            f"Received: options={options.__name__}"
        )
    unknown = sorted(set(more.get("guarantees", ())) - GUARANTEES.keys())
    if unknown:
        raise BadOption(f"guarantees of {name} must be from {', '.join(GUARANTEES)}. Received: guarantees={unknown}")
    fmt = Format(name=name, summary=summary, generate=generate, options=options, **more)
    formats.add(name, fmt, fmt.write.__module__)


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
