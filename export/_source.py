"""What a format is written from: the float32 model rebuilt from spec and weights, with its preprocessing inside."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo
from export._format import formats
from training._loop import build_model, load_model
from training._pipeline import Pipeline, open_pipeline
from training._preprocess import decode
from training._run import Run
from zoo._build import dtype_policy, input_name
from zoo._errors import ParityError
from zoo._lazy import keras, np
from zoo._preprocessing import Preprocessing

if TYPE_CHECKING:
    import keras as _keras
    import numpy as _np

CALIBRATION = 200
# A float32 rebuild of a float32 model repeats it; of a mixed-precision one it differs by that one's rounding.
REBUILD = {"float32": 1e-5}
REBUILD_MIXED = 0.1


class Source:
    """A network as formats see it; lives in the child process that converts.

    Args:
        network: keras.Model in float32 from preprocessed values (n, *shape) to logits (n, classes).
        contract: the preprocessing, which goes into the artifact.
        labels: names of the classes.
        calibrate: returns examples (n, *shape) as float32 raw values, for the ranges of quantized tensors.
        scratch: folder for what formats share.

    Attributes:
        model: keras.Model in float32, from raw values "image" or "features" (n, *shape) to logits.
        metadata: JSON-safe facts that go into the artifact itself.
    """

    def __init__(
        self,
        network: _keras.Model,
        contract: Preprocessing,
        labels: Sequence[str],
        calibrate: Callable[[], _np.ndarray],
        scratch: Path,
    ) -> None:
        self.shape = tuple(network.input_shape[1:])
        self.labels = tuple(labels)
        self.model = _with_preprocessing(network, contract)
        self._contract, self._calibrate, self._scratch = contract, calibrate, scratch
        self.metadata: dict[str, Any] = {
            "model": network.name,
            "input": input_name(self.shape),
            "output": "logits",
            "shape": list(self.shape),
            "labels": list(self.labels),
            "preprocessing": {**contract.to_json(), "inside": True},
        }

    @functools.cached_property
    def calibration(self) -> _np.ndarray:
        """Training examples, raw values as float32 (n, *shape)."""
        return self._calibrate()

    @property
    def decode(self) -> Callable[[Any], Any] | None:
        """Map a scalar string tensor (an encoded image) to raw pixels (*shape) as in training; None for features."""
        if len(self.shape) != 3:
            return None
        return functools.partial(decode, shape=self.shape, contract=self._contract)

    def shared(self, fmt: str) -> Path:
        """Return the path of a format's artifact, written once for all that are made from it."""
        path = self._scratch / fmt / formats[fmt].file
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            formats[fmt].write(self, path)
        return path


def open_source(run: Run, scratch: Path, most: int) -> tuple[Source, dict[str, _np.ndarray]]:
    """Rebuild the model of a finished run.

    Args:
        run: a finished run.
        scratch: folder for what formats share.
        most: how many test examples to return at most.

    Returns:
        The source, and test examples with the logits that every artifact must reproduce: inputs (raw values),
        labels, logits.

    Raises:
        ParityError: the rebuild is not the function that was trained.
    """
    pipeline = open_pipeline(run.recipe, zoo.spec(run.recipe.model.name))
    network, labels = _rebuild(run, pipeline), run.result()["labels"]
    source = Source(network, pipeline.contract, labels, lambda: pipeline.raw("train", CALIBRATION)[0], scratch)
    split = "test" if "test" in pipeline.dataset.splits else "validation"
    inputs, truth = pipeline.raw(split, most)
    logits = source.model.predict(inputs, batch_size=32, verbose=0)
    return source, {"inputs": inputs, "labels": truth, "logits": logits}


def _rebuild(run: Run, pipeline: Pipeline) -> Any:
    """Build the network in float32, load the trained weights, and prove that it is still the same function."""
    with dtype_policy("float32"):
        network = build_model(run.recipe, pipeline)
    network.load_weights(run.model_path)
    x, _ = next(iter(pipeline.evaluate("validation")))
    trained = np.asarray(load_model(run)(x, training=False), "float32")
    difference = float(np.abs(np.asarray(network(x, training=False)) - trained).max() / (np.abs(trained).max() + 1e-12))
    allowed = REBUILD.get(run.result()["precision"], REBUILD_MIXED)
    if not difference <= allowed:
        raise ParityError(
            f"The float32 rebuild of {run.path} differs from its model.keras by {difference:.2g} of the largest logit; "
            f"{allowed:g} is allowed. The family's code or the file has changed since training."
        )
    return network


def _with_preprocessing(network: Any, contract: Preprocessing) -> Any:
    """Put the normalization in front of a network, so that an artifact takes raw values."""
    scale, offset = contract.affine()
    shape = tuple(network.input_shape[1:])
    inputs = keras.Input(shape, name=input_name(shape), dtype="float32")
    x = keras.layers.Rescaling(_one(scale), _one(offset), name="preprocessing", dtype="float32")(inputs)
    return keras.Model(inputs, network(x), name=network.name)


def _one(values: list[float]) -> Any:
    """Return a number where one serves all channels."""
    return values[0] if len(values) == 1 else values
