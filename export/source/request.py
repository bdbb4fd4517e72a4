"""A request to export a model of the registry: its name, weights, calibration data and options."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zoo
from export.source.sizes import stated_sizes
from training.common.image_files import suffixes
from training.data.readers.scan import visible_files
from zoo.build import check_options
from zoo.common.budgets import MOST_FILES, check_option, check_shape
from zoo.common.errors import BadOption, DataError
from zoo.specs.preprocessing import parse_preprocessing
from zoo.specs.registry import ModelSpec, models
from zoo.specs.tasks import task_of
from zoo.weights.names import check_weights, is_weights_file, weights_path
from zoo.weights.references import is_repository
from zoo.weights.repositories import locate, stored_model

RANDOM = "random"
FOLDER, FILE, TEXTS, NOISE = "folder", "file", "texts", "noise"  # kinds of examples
# Options that `zoo.get` has for every family.
COMMON_OPTIONS = ("classes", "input_shape", "preprocessing")


@dataclasses.dataclass(frozen=True)
class RegistryRequest:
    """A model of the registry to export; JSON-safe.

    Args:
        name: its name.
        weights: as for `zoo.get`, or "random".
        calibration: a folder of images, a .npy or .csv file of examples, or a .txt file of texts, one a line, to
            calibrate and compare on; "" for none.
        options: those of `zoo.get`: classes, input_shape, preprocessing and the family's.
    """

    name: str
    weights: str
    calibration: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def spec(self) -> ModelSpec:
        """The model's spec."""
        return zoo.spec(self.name)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the input; of a sequence-to-sequence model, both lengths."""
        return tuple(self.options.get("input_shape") or self.spec.input_shape)

    @property
    def task(self) -> str:
        """The task of the model: a classifier without classes gives vectors."""
        kind, classes = task_of(self.spec.task), self.options.get("classes")
        other = kind.headed if classes else kind.headless if classes == 0 else ""
        return other or self.spec.task

    @property
    def classes(self) -> int:
        """Number of classes; of a sequence-to-sequence model, tokens."""
        return self.options.get("classes") or self.spec.classes

    @property
    def labels(self) -> list[str]:
        """Names of the classes where the weights do not state them: numbers."""
        return [str(number) for number in range(self.classes)] if task_of(self.task).classes else []

    @property
    def samples(self) -> str:
        """Kind of examples that artifacts are compared on: "folder", "file", "texts" or "noise"."""
        if not self.calibration:
            return NOISE
        path = Path(self.calibration)
        return FOLDER if path.is_dir() else TEXTS if path.suffix == ".txt" else FILE

    def check(self) -> None:
        """Raise UnknownName, BadOption or DataError for an invalid request, without importing Keras."""
        spec = self.spec
        if "preprocessing" in self.options:
            parse_preprocessing(self.options["preprocessing"])
        check_option("classes", self.options.get("classes") or 0)
        sizes = self.options.get("input_shape")
        if isinstance(sizes, (list, tuple)) and sizes and all(isinstance(size, int) for size in sizes):
            check_shape(sizes, spec.inputs == ("image",))
        check_options(self.name, {key: value for key, value in self.options.items() if key not in COMMON_OPTIONS})
        if not self.weights:
            hint = "'imagenet', " if spec.weights else ""
            raise BadOption(
                f"A registry model needs weights: {hint}a path, or 'random' for a trial. "
                f"Received: model={self.name!r} without weights. Give --weights."
            )
        if self.weights != RANDOM:
            check_weights(models[self.name], self.weights)
        if self.calibration and not Path(self.calibration).exists():
            raise DataError(
                "calibration must be a folder of images, a .npy or .csv file of examples, or a .txt file of texts. "
                f"Received: calibration={self.calibration!r}, which does not exist"
            )
        if self.samples == FOLDER:
            self.images()

    @classmethod
    def locate(cls, name: str, weights: str, calibration: str, options: Mapping[str, Any]) -> RegistryRequest:
        """Return the request for a registered name, or for one that has its weights; see `zoo.get`.

        Classes and shape are those that a repository or a file states, where the options have none.
        """
        name, weights = locate(name, weights or None)
        stated: dict[str, Any] = {}
        if weights and is_repository(weights):
            stored = stored_model(weights)
            sizes = {"classes": stored.classes, "input_shape": stored.input_shape}
            stated = {key: value for key, value in sizes.items() if value is not None}
        elif weights and is_weights_file(weights) and not {"classes", "input_shape"} <= options.keys():
            stated = stated_sizes(models[name], weights_path(weights), given=options)
        return cls(name, weights or "", calibration, {**stated, **options})

    def images(self) -> list[Path]:
        """Return the images below the calibration folder; raises DataError if there are none."""
        return find_images(Path(self.calibration))


def find_images(root: Path) -> list[Path]:
    """Return the images below a calibration folder; raises DataError if there are none."""
    known, files = suffixes(), list(itertools.islice(visible_files(root), MOST_FILES + 1))
    if len(files) > MOST_FILES:
        raise DataError(
            f"Expected a calibration folder of at most {MOST_FILES:,} files. Received: calibration={str(root)!r} with "
            "more. Name the folder of the images, or a part of them."
        )
    found = sorted(path for path in files if path.suffix.lower() in known and path.is_file())
    if not found:
        raise DataError(
            f"A calibration folder must hold images ({', '.join(known)}). Received: calibration={str(root)!r}"
        )
    return found
