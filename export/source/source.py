"""What a format is written from: the float32 model rebuilt from spec and weights, with its preprocessing inside."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.core.format import FormatRequest, describe, formats, name_input
from export.core.generate import step_examples
from export.core.operators import operators
from export.core.options import Options
from export.core.samples import SECOND, SEVERAL, count_examples, filled, head, predicted
from export.source.backend_parity import require_same_logits
from training.common.preprocess import decode
from training.data.pipeline.pipeline import Pipeline
from training.data.tokenization import detokenize
from training.learning.build import build_model
from training.learning.evaluation import load_model, open_data
from training.runs.run import Run
from zoo.build import dtype_policy
from zoo.common.errors import ParityError
from zoo.common.lazy import keras, np
from zoo.decoding import Parts, greedy, split
from zoo.specs.preprocessing import PreprocessingConfig
from zoo.specs.text import PADDING, TextConfig

if TYPE_CHECKING:
    import keras as _keras

CALIBRATION = 200
STEPS = 500  # of the decoder, for its ranges
# Samples kept beside an artifact: at most so many, fewer of what is written step by step, and at most so many bytes.
SAMPLES, WRITTEN, SAMPLE_BYTES = 1000, 200, 32 << 20
# A float32 rebuild of a float32 model repeats it; of a mixed-precision one it differs by that one's rounding.
REBUILD = {"float32": 1e-5}
REBUILD_MIXED = 0.1
# In ONNX no output can have the name of an input.
RENAMED = {"cache": "next_cache"}
# The label of what is padding.
NOTHING = -1


@dataclasses.dataclass(frozen=True)
class Part:
    """A function that an artifact holds.

    Args:
        name: the name of its signature.
        model: keras.Model in float32.
        outputs: names of its outputs, which no input has.
    """

    name: str
    model: _keras.Model
    outputs: tuple[str, ...]

    @property
    def inputs(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape without the batch, and dtype, of each input."""
        return {tensor.name: (tuple(tensor.shape[1:]), tensor.dtype) for tensor in self.model.inputs}

    def __call__(self, **values: Any) -> dict[str, Any]:
        """Return the outputs by name."""
        several = isinstance(self.model.input, dict)
        found = self.model(values if several else next(iter(values.values())), training=False)
        if not isinstance(found, dict):
            return {self.outputs[0]: found}
        return {RENAMED.get(name, name): value for name, value in found.items()}


class SourceModel:
    """A network as formats see it; lives in the child process that converts.

    Args:
        network: keras.Model in float32, from preprocessed values (n, *shape) or from token ids.
        contract: the preprocessing, which goes into the artifact; nothing is done to ids.
        labels: names of the classes or tags; none where text is written.
        calibrate: returns examples as artifacts take them, for the ranges of quantized tensors.
        scratch: folder for what formats share.
        text: how strings become ids, where that is known.
        facts: "task", where the network alone does not tell it, and what else is told of the data, for the metadata.

    Attributes:
        model: keras.Model in float32, from raw values "image" or "features" (n, *shape), or ids, to logits or values.
        task: "classify", "multilabel", "regress", "tag" or "generate"; see training.Dataset.
        metadata: JSON-safe facts that go into the artifact itself.
        writers: formats that are written by a compression, not by themselves.
    """

    def __init__(
        self,
        network: _keras.Model,
        preprocessing: PreprocessingConfig,
        labels: Sequence[str],
        calibrate: Callable[[], Any],
        scratch: Path,
        text: TextConfig | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        facts = dict(facts or {})
        names = [tensor.name for tensor in network.inputs]
        of_ids = network.inputs[0].dtype == "int32"
        told = "generate" if len(names) > 1 else "tag" if len(network.output_shape) > 2 else "classify"
        self.task = facts.pop("task", told)
        self.shape = tuple(size for tensor in network.inputs for size in tensor.shape[1:])
        self.labels, self.text = tuple(labels), text
        self.model = network if of_ids else _with_preprocessing(network, preprocessing)
        self._contract, self._calibrate, self._scratch = preprocessing, calibrate, scratch
        self._written: set[str] = set()
        self.writers: Mapping[str, Callable[..., None]] = {}
        given = name_input(names[0], self.shape), network.inputs[0].dtype, self.shape
        self.metadata = describe(network.name, self.task, given, self.labels)
        self.metadata |= {
            "preprocessing": None if of_ids else {**preprocessing.to_json(), "inside": True},
            "text": text and text.to_json(),
            **facts,
        }

    @functools.cached_property
    def calibration(self) -> Any:
        """Training examples: raw values as float32 (n, *shape), ids int32, or a dictionary of ids by input."""
        return self._calibrate()

    @functools.cached_property
    def operators(self) -> list[tuple[str, str]]:
        """TensorFlow's operators that it runs when asked for an answer, each with the name of its layer."""
        return operators(self.model)

    @functools.cached_property
    def encoder_decoder(self) -> Parts:
        """A network that writes sequences, taken apart."""
        return split(self.model)

    @functools.cached_property
    def parts(self) -> tuple[Part, ...]:
        """The functions that an artifact holds: one, or two of a network that writes sequences."""
        if self.task != "generate":
            return (Part("serving_default", self.model, (self.metadata["output"],)),)
        taken = self.encoder_decoder
        return Part("encode", taken.encoder, ("memory",)), Part("decode", taken.decoder, ("logits", "next_cache"))

    def feeds(self, part: Part, batch: int) -> Iterator[dict[str, Any]]:
        """Yield calibration data as a part takes it, in batches, which are all of that size."""
        if self.task != "generate":
            (name,) = part.inputs
            batches: list[dict[str, Any]] = [{name: self.calibration}]
        else:
            batches = self._steps[part.name]
        for inputs in batches:
            yield from (filled(head(inputs, batch, first), batch) for first in range(0, count_examples(inputs), batch))

    @functools.cached_property
    def _steps(self) -> dict[str, list[dict[str, Any]]]:
        """What each part is given while calibration data is written."""
        source, target = (self.calibration[name] for name in SEVERAL)
        few = max(4, STEPS // target.shape[1])
        return {"encode": [{"source": source}], "decode": step_examples(self.parts, source[:few], target[:few])}

    @property
    def decode(self) -> Callable[[Any], Any] | None:
        """Map a scalar string tensor (an encoded image) to raw pixels (*shape) as in training; None for others."""
        if self.metadata["input"] != "image":
            return None
        return functools.partial(decode, shape=self.shape, preprocessing=self._contract)

    def shared(self, fmt: str, options: Options | None = None) -> Path:
        """Return the path of a format's artifact, written once for all that are made from it.

        Args:
            fmt: name of the format.
            options: an instance of the format's dataclass, its defaults if None.
        """
        entry = formats[fmt]
        options = options or entry.options()
        folder, way = self._scratch / FormatRequest(entry, options).slug, entry.way(self.task)
        if folder.name not in self._written:
            folder.mkdir(parents=True, exist_ok=True)
            given = (options,) if dataclasses.fields(options) else ()
            self.writers.get(fmt, way.write)(self, folder / way.file, *given)
            self._written.add(folder.name)
        return folder / way.file


def open_run_source(run: Run, scratch: Path, change: Callable[..., Any] | None = None) -> tuple[SourceModel, dict[str, Any]]:
    """Rebuild the model of a finished run.

    Args:
        run: a finished run.
        scratch: folder for what formats share.
        change: `change(network, pipeline)` makes the network smaller; returns an `export.compression.pipeline.Made`.

    Returns:
        The source, and test examples with what every artifact must reproduce: inputs (raw values or ids), labels (-1
        for padding), logits, and of a network that writes sequences its tokens.

    Raises:
        ParityError: the rebuild is not the function that was trained.
    """
    pipeline = open_data(run)
    network, labels = _rebuild(run, pipeline), run.result()["labels"]
    made = change(network, pipeline) if change else None
    network = made.network if made else network
    source = SourceModel(
        network,
        pipeline.preprocessing,
        labels,
        lambda: pipeline.raw("train", CALIBRATION)[0],
        scratch,
        pipeline.text,
        data_metadata(run),
    )
    source.writers = made.writers if made else {}
    return source, _samples(source, pipeline)


def data_metadata(run: Run) -> dict[str, Any]:
    """Return what is told of the data of a run beside its labels: the task, and the columns of a table."""
    task, learnt = run.result().get("task"), run.learnt() or {}
    return {key: value for key, value in (("task", task), ("tabular", learnt.get("tabular"))) if value}


def _samples(source: SourceModel, pipeline: Pipeline) -> dict[str, Any]:
    """Return test examples with what the source makes of them."""
    writes = source.task == "generate"
    # Pixels take a byte each, logits four.
    size = math.prod(source.shape) + 4 * math.prod(source.model.output_shape[1:])
    split = "test" if "test" in pipeline.dataset.splits else "validation"
    most = max(16, min(WRITTEN if writes else SAMPLES, SAMPLE_BYTES // size))
    inputs, truth = pipeline.raw(split, most)
    samples = {"inputs": inputs, "labels": truth, "logits": predicted(source.model, inputs)}
    if source.text:
        samples["texts"] = np.array(pipeline.strings(split, most)[:SECOND])
    if writes:
        samples["labels"] = np.where(truth == PADDING, NOTHING, truth)
        samples["tokens"] = np.asarray(greedy(source.encoder_decoder, keras.ops.convert_to_tensor(inputs["source"])))
        written = detokenize(source.text, samples["tokens"][:SECOND]).numpy()
        samples["written"] = np.array([text.decode("utf-8", "replace") for text in written])
    return samples


def _rebuild(run: Run, pipeline: Pipeline) -> Any:
    """Build the network in float32, load the trained weights, and prove that it is still the same function."""
    with dtype_policy("float32"):
        network = build_model(run.recipe, pipeline)
    network.load_weights(run.model_path)
    require_same_logits(run, network)
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


def _with_preprocessing(network: Any, preprocessing: PreprocessingConfig) -> Any:
    """Put the normalization in front of a network, so that an artifact takes raw values."""
    scale, offset = preprocessing.affine()
    (given,) = network.inputs
    shape = given.shape[1:]
    inputs = keras.Input(shape, name=name_input(given.name, shape), dtype="float32")
    x = keras.layers.Rescaling(_one(scale), _one(offset), name="preprocessing", dtype="float32")(inputs)
    return keras.Model(inputs, network(x), name=network.name)


def _one(values: list[float]) -> Any:
    """Return a number where one serves all channels."""
    return values[0] if len(values) == 1 else values
