"""What a model is: its architecture options, and the preprocessing, labels and license of its weights. Pure data."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.types import fit_type
from zoo.specs.preprocessing import PreprocessingConfig
from zoo.specs.text import TextConfig

Numbers = tuple[float, ...]

INFO_KEY = "zoo"  # of the info in the configuration of a model, and in files


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What travels with a model of the zoo, in memory and in its files. Unknown values are None, never guessed.

    Args:
        name: the registered name.
        options: options of the architecture with which the model was built.
        preprocessing: preprocessing that the weights expect; of random weights the spec's.
        input_size: image height and width in pixels for which the weights were made.
        rescaling: (scale, offset) of the pixel scaling inside the model, by channel or for all; None without one.
        labels: names of the classes in the order of the logits.
        labels_origin: the data set that gives the classes their names and order, such as "imagenet-1k".
        license: SPDX identifier of the license of the weights.
        origin: where the weights come from, such as "timm/resnet50.a1_in1k"; None for random weights.
        revision: commit of the repository of origin.
        sha256: SHA-256 of the original file in hexadecimal.
        text: how strings become the ids that the weights expect.
    """

    name: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    preprocessing: PreprocessingConfig | None = None
    input_size: tuple[int, int] | None = None
    rescaling: tuple[Numbers, Numbers] | None = None
    labels: tuple[str, ...] | None = None
    labels_origin: str | None = None
    license: str | None = None
    origin: str | None = None
    revision: str | None = None
    sha256: str | None = None
    text: TextConfig | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the info as JSON-safe values."""
        values = {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return values | {name: value and value.to_json() for name, value in self._configs().items()}

    def _configs(self) -> dict[str, Any]:
        return {"preprocessing": self.preprocessing, "text": self.text}

    @classmethod
    def from_json(cls, values: Any) -> ModelInfo:
        """Return the info of `to_json` values; missing keys have their defaults, and other keys are ignored.

        Raises:
            BadOption: no info, or a preprocessing that is out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(values, Mapping) or not isinstance(values.get("name"), str):
            raise BadOption(f"Expected the info of a model of the zoo. Received: info={str(values)[:100]}")
        given = {name: _tuples(value) for name, value in values.items() if name in known and value is not None}
        if not isinstance(given.get("options", {}), Mapping):
            raise BadOption(f"Expected options by name. Received: info.options={str(given['options'])[:100]}")
        hints = typing.get_type_hints(cls)
        for key in given.keys() - {"options", "preprocessing", "text"}:
            given[key] = fit_type(given[key], hints[key], f"info.{key}")
        for key in ("input_size", "rescaling"):
            if len(given.get(key, (0, 0))) != 2:
                raise BadOption(f"info.{key} must have two entries. Received: info.{key}={str(given[key])[:100]}")
        for key, config in (("preprocessing", PreprocessingConfig), ("text", TextConfig)):
            if key in given:
                given[key] = config.from_json(values[key])
        return cls(**given)


def _plain(value: Any) -> Any:
    """Return a value with lists in the place of tuples."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _tuples(value: Any) -> Any:
    """Return a value with tuples in the place of lists."""
    if isinstance(value, Mapping):
        return {name: _tuples(each) for name, each in value.items()}
    return tuple(_tuples(each) for each in value) if isinstance(value, (list, tuple)) else value
