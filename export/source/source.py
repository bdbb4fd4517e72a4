"""The model that formats convert: float32, with preprocessing inside. Lives in the child process."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.core.format import Format, FormatRequest, formats
from export.core.generate import decoder_inputs
from export.core.keras_graph import check_same
from export.core.metadata import input_name, model_metadata, output_names
from export.core.options import REMEDY, Options, changed_options
from export.core.precheck import TENSOR_LIST
from export.core.samples import SEQUENCE_INPUTS, count_examples, pad_batch, take_examples
from export.source.loops import unroll
from export.source.operators import operators
from training.common.pixel_limit import refuse_large
from training.common.preprocess import decode
from training.recipe.config import DataConfig
from zoo.common.compat import producer
from zoo.common.errors import BadOption, ExportError
from zoo.common.files import write_json
from zoo.common.lazy import keras
from zoo.decoding import EncoderDecoder, split_model
from zoo.specs.info import ModelInfo
from zoo.specs.preprocessing import PreprocessingConfig
from zoo.specs.tasks import task_of
from zoo.specs.text import TextConfig

if TYPE_CHECKING:
    import keras as _keras

CALIBRATION_EXAMPLES = 200
DECODER_STEPS = 500  # for the calibration of a decoder
# ONNX does not allow an output with the name of an input.
OUTPUT_NAMES = {"cache": "next_cache"}
PREPROCESSING = "preprocessing"  # name of the layer
# Examples and allowed error of a model with other layers that must compute the same.
PROBED, SAME = 8, 1e-5


@dataclasses.dataclass(frozen=True)
class Part:
    """A function of an artifact.

    Args:
        name: name of its signature.
        model: keras.Model in float32.
        outputs: names of its outputs; no input has one of them.
    """

    name: str
    model: _keras.Model
    outputs: tuple[str, ...]

    @property
    def inputs(self) -> dict[str, tuple[tuple[int | None, ...], str]]:
        """Shape without the batch, and dtype, of each input."""
        return {name: (tuple(tensor.shape[1:]), tensor.dtype) for name, tensor in named_inputs(self.model).items()}

    def __call__(self, **values: Any) -> dict[str, Any]:
        """Return the outputs by name."""
        by_name = isinstance(self.model.input, dict)
        outputs = self.model(values if by_name else next(iter(values.values())), training=False)
        if not isinstance(outputs, dict):
            return {self.outputs[0]: outputs}
        return {OUTPUT_NAMES.get(name, name): value for name, value in outputs.items()}


def named_inputs(model: _keras.Model) -> dict[str, Any]:
    """Return the symbolic inputs of a functional model by name: their keys in a dictionary, or their layers' names."""
    given = model.input
    return dict(given) if isinstance(given, dict) else {producer(tensor).name: tensor for tensor in model.inputs}


class SourceModel:
    """A model as formats convert it.

    Args:
        model: keras.Model in float32, from preprocessed values (n, *shape) or from token ids.
        preprocessing: becomes part of the artifact; does not apply to ids; None for a model that takes raw values.
        labels: names of the classes or tags; none for sequence-to-sequence models.
        calibrate: `calibrate(count)` returns up to `count` training examples as artifacts take them.
        scratch: folder for artifacts that several formats share.
        text: how strings become ids, if known.
        metadata: "task", if the model alone does not determine it, other metadata of the data, and those of the
            interface that differ: names of inputs and outputs.

    Attributes:
        model: keras.Model in float32, from raw values "image" or "features" (n, *shape), or ids, to logits or values.
        task: "classify", "multilabel", "regress", "tag", "generate" or "multitask", see training.Dataset; "embed" for a
            vector.
        metadata: JSON-safe metadata for the artifact.
        inner: the model without preprocessing.
        info: what is known of the weights; None for a run.
        writers: functions that replace the `write` of formats, by format; from compressions.
        max_pixels: width x height of the largest image that is decoded; 0 for no limit.
    """

    max_pixels: int = DataConfig.max_pixels

    def __init__(
        self,
        model: _keras.Model,
        preprocessing: PreprocessingConfig | None,
        labels: Sequence[str],
        calibrate: Callable[[int], Any],
        scratch: Path,
        text: TextConfig | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self._again = functools.partial(SourceModel, text=text, metadata=metadata)
        self.inner, self._derived = model, dict[str, SourceModel]()
        extra = dict(metadata or {})
        names = list(named_inputs(model))
        takes_ids = model.inputs[0].dtype == "int32"
        self.task = extra.pop("task", None) or _default_task(model)
        self.shape = tuple(size for tensor in model.inputs for size in tensor.shape[1:])
        self.labels, self.text = tuple(labels), text
        applied = None if takes_ids else preprocessing
        self.model = model if applied is None else _with_preprocessing(model, applied)
        self._preprocessing, self._calibrate, self._scratch = preprocessing, calibrate, scratch
        self._converted: set[str] = set()
        self.writers: Mapping[str, Callable[..., None]] = {}
        self.info: ModelInfo | None = None
        signature = input_name(names[0], self.shape), model.inputs[0].dtype, self.shape
        self.metadata = model_metadata(model.name, self.task, signature, self.labels)
        self.metadata |= {
            "preprocessing": applied and {**applied.to_json(), "inside": True},
            "text": text and text.to_json(),
            **extra,
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What the process that asked for the export needs to know, JSON-safe; see `export.source.job.ExportJob`."""
        stated = {name: self.metadata[name] for name in ("labels", "preprocessing", "text")}
        return {**stated, "info": self.info and self.info.to_json(), "metadata": self.metadata}

    @functools.cached_property
    def calibration(self) -> Any:
        """Training examples: raw values as float32 (n, *shape), ids int32, or a dictionary of ids by input."""
        return self._calibrate(CALIBRATION_EXAMPLES)

    @functools.cached_property
    def example(self) -> Any:
        """The first of these examples, read alone: formats that are not calibrated need no more."""
        return take_examples(self._calibrate(1), 1)

    def preprocessed(self, count: int) -> Any:
        """Return `count` of the calibration examples as the model without preprocessing takes them."""
        examples = take_examples(self.calibration, count)
        return examples if self.model is self.inner else self.model.get_layer(PREPROCESSING)(examples)

    def derived(self, name: str, change: Callable[[_keras.Model], _keras.Model]) -> SourceModel:
        """Return this source with another model, which is made on first use.

        Args:
            name: of the folder for its artifacts, in the scratch folder.
            change: returns the new model for the one without preprocessing; both have the same inputs and outputs.
        """
        if name not in self._derived:
            folder = self._scratch / name
            folder.mkdir(exist_ok=True)
            model = change(self.inner)
            calibrate = functools.partial(take_examples, self.calibration)
            self._derived[name] = self._again(model, self._preprocessing, self.labels, calibrate, folder)
        return self._derived[name]

    @functools.cached_property
    def operators(self) -> list[tuple[str, str]]:
        """The TensorFlow operators that the model runs at inference, each with the name of its layer."""
        return operators(self.model)

    def for_format(self, fmt: Format) -> SourceModel:
        """Return this source as a format can hold it: with unrolled loops, or itself."""
        if fmt.loops or TENSOR_LIST not in {kind for kind, _ in self.operators}:
            return self
        return self._unrolled

    @functools.cached_property
    def _unrolled(self) -> SourceModel:
        """This source with the steps of its recurrent layers side by side; itself where that is another function."""
        try:
            found = self.derived("unrolled", unroll)
            check_same(self.model, found.model, take_examples(self.calibration, PROBED), SAME)
        except (ValueError, BadOption, ExportError):
            # Too many steps, or a mask that Keras applies in another way: the rules of the format refuse it.
            return self
        return found

    @functools.cached_property
    def encoder_decoder(self) -> EncoderDecoder:
        """Encoder and decoder step of a sequence-to-sequence model."""
        return split_model(self.model)

    @functools.cached_property
    def parts(self) -> tuple[Part, ...]:
        """The functions of an artifact: one, or encoder and decoder step of a sequence-to-sequence model."""
        if not task_of(self.task).generates:
            return (Part("serving_default", self.model, output_names(self.metadata)),)
        taken = self.encoder_decoder
        return Part("encode", taken.encoder, ("memory",)), Part("decode", taken.decoder, ("logits", "next_cache"))

    def feeds(self, part: Part, batch: int) -> Iterator[dict[str, Any]]:
        """Yield calibration data for a part in batches of exactly `batch` examples."""
        if not task_of(self.task).generates:
            examples = self.calibration
            batches: list[dict[str, Any]] = [
                examples if isinstance(examples, dict) else {next(iter(part.inputs)): examples}
            ]
        else:
            batches = self._part_inputs[part.name]
        for inputs in batches:
            for first in range(0, count_examples(inputs), batch):
                yield pad_batch(take_examples(inputs, batch, first), batch)

    @functools.cached_property
    def _part_inputs(self) -> dict[str, list[dict[str, Any]]]:
        """The inputs of encoder and decoder while calibration data is decoded."""
        source, target = (self.calibration[name] for name in SEQUENCE_INPUTS)
        few = max(4, DECODER_STEPS // target.shape[1])
        return {"encode": [{"source": source}], "decode": decoder_inputs(self.parts, source[:few], target[:few])}

    @property
    def decode(self) -> Callable[[Any], Any] | None:
        """The function from a scalar string tensor (an encoded image) to raw pixels (*shape); None without images.

        An image of more than `max_pixels` is refused by its header: a small file can hold more than fits into memory.
        """
        preprocessing = self._preprocessing
        if self.metadata["input"] != "image" or preprocessing is None:
            return None

        def pixels(encoded: Any) -> Any:
            return decode(refuse_large(encoded, self.max_pixels), self.shape, preprocessing)

        return pixels

    def artifact_path(self, fmt: str, options: Options | None = None) -> Path:
        """Return the path of a format's artifact; converts it on first use, so that formats can build on each other.

        Args:
            fmt: name of the format.
            options: an instance of the format's options dataclass; its defaults if None.
        """
        entry = formats[fmt]
        options = options or entry.options()
        folder, backend = self._scratch / FormatRequest(entry, options).slug, entry.backend(self.task)
        if folder.name not in self._converted:
            folder.mkdir(exist_ok=True)
            arguments = (options,) if dataclasses.fields(options) else ()
            if fmt in self.writers:
                _refuse_remedies(fmt, options)
            write = self.writers.get(fmt, backend.write)
            record = write(self.for_format(entry), folder / backend.file, *arguments)
            write_json(record_path(folder), record or {}, parents=False)
            self._converted.add(folder.name)
        return folder / backend.file


def _default_task(model: Any) -> str:
    """Return the task that a model alone determines."""
    return "generate" if len(model.inputs) > 1 else "tag" if len(model.output_shape) > 2 else "classify"


def _refuse_remedies(fmt: str, options: Options) -> None:
    """Raise BadOption for options of quantization if a step of the compression pipeline quantizes the model itself."""
    quantizing = {field.name for field in dataclasses.fields(options) if REMEDY in field.metadata}
    received = quantizing & changed_options(options).keys()
    if received:
        raise BadOption(
            f"The compression quantizes {fmt} itself. Received: options={sorted(received)}. Leave them out, or the "
            "last step of --compress."
        )


def record_path(folder: Path) -> Path:
    """Return the file with what the manifest records of a converted artifact, next to its folder."""
    return folder.with_name(f"{folder.name}.json")


def _with_preprocessing(model: Any, preprocessing: PreprocessingConfig) -> Any:
    """Put the normalization in front of a model, so that the artifact takes raw values."""
    scale, offset = preprocessing.affine()
    (tensor,) = model.inputs
    shape = tensor.shape[1:]
    inputs = keras.Input(shape, name=input_name(tensor.name, shape), dtype="float32")
    layer = keras.layers.Rescaling(_scalar(scale), _scalar(offset), name=PREPROCESSING, dtype="float32")
    return keras.Model(inputs, model(layer(inputs)), name=model.name)


def _scalar(values: list[float]) -> Any:
    """Return a number if one value applies to all channels."""
    return values[0] if len(values) == 1 else values
