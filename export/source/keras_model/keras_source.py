"""The source model of a user's Keras model: float32, with one name for each input and output, and its examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.core.samples import (
    count_examples,
    examples_per_call,
    in_batches,
    predict_in_batches,
    split_examples,
    take_examples,
)
from export.source.copies import in_float32, read_copy, resolve
from export.source.keras_model.examples import COMPARED, LABELED, by_input, noise, read_examples
from export.source.keras_model.interface import embedded, is_sigmoid, layer_name, named_model
from export.source.source import SourceModel, named_inputs
from zoo.build import dtype_policy
from zoo.common.errors import BadOption, DataError
from zoo.common.footprint import require_inference
from zoo.common.lazy import keras, np, tf
from zoo.reading.arrays import read_npz
from zoo.reading.files import Refusal
from zoo.reading.keras_models import open_model
from zoo.specs.tasks import ANY, BINARY, CLASSIFY, NUMERIC, task_of

if TYPE_CHECKING:
    import keras as _keras

COPY = ".json"  # a copy of the parent process, see `export.source.copies`
LABELS = "labels"  # the array of labels in the file of examples; those of the inputs have a number in front
ADVICE = "Use a file that keras.Model.save wrote; name the classes of its custom layers with --custom MODULE:CLASS."


@dataclasses.dataclass(frozen=True)
class KerasRequest:
    """A Keras model to export; JSON-safe.

    Args:
        name: of the model.
        path: its `.keras` or `.h5` file, or a copy that the parent process wrote; "" for a model in this process.
        custom: addresses "module:Class" of custom classes, by their names.
        examples: a .npz file that `write_examples` wrote; "" for none.
        calibration: a file or folder that a user named; "" for none.
        labels: names of the classes; numbers if empty.
        task: of the only output, "classify", "binary", "numeric" or "any"; what the model and its labels show if "".
        input_range: smallest and largest value of float inputs, for noise; None if unknown.
        input_shape: sizes of the only input, or of each by name, for free ones.
    """

    name: str
    path: str = ""
    custom: Mapping[str, str] = dataclasses.field(default_factory=dict)
    examples: str = ""
    calibration: str = ""
    labels: Sequence[str] = ()
    task: str = ""
    input_range: Sequence[float] | None = None
    input_shape: Any = None


def write_examples(examples: Any, labels: Any, path: Path) -> None:
    """Write examples, a list of arrays or arrays by name, and their labels for another process."""
    named = examples if isinstance(examples, dict) else dict(enumerate(examples))
    arrays = {f"{number}_{name}": array for number, (name, array) in enumerate(named.items())}
    np.savez(path, **arrays, **({} if labels is None else {LABELS: labels}), named=np.array(isinstance(examples, dict)))


def _read(path: str) -> tuple[Any, Any]:
    """Return the examples and labels that `write_examples` wrote."""
    if not path:
        return None, None
    arrays = read_npz(path)
    labels, named = arrays.pop(LABELS, None), arrays.pop("named")
    if named:
        return {name.partition("_")[2]: array for name, array in arrays.items()}, labels
    return list(arrays.values()), labels


def open_keras_source(
    request: KerasRequest, scratch: Path, model: _keras.Model | None = None
) -> tuple[SourceModel, dict[str, Any]]:
    """Open a user's model.

    Args:
        request: the model and its examples.
        scratch: folder for artifacts that several formats share.
        model: the model, if it is in this process; it is not changed.

    Returns:
        What `export.source.run_source.open_run_source` returns.

    Raises:
        BadOption: the model cannot be opened, or its inputs are not known.
        DataError: the examples do not fit.
    """
    given, labels = _read(request.examples)
    with dtype_policy("float32"):
        opened = in_float32(model if model is not None else _opened(request))
        functional, interface = named_model(_resized(opened, request.input_shape), _shapes(given))
    examples = _examples(request, given, functional)
    require_inference(functional, min(count_examples(examples), examples_per_call(examples)))
    interface |= _task(request, interface, functional, labels)
    kind = task_of(interface["task"])
    is_labeled = labels is not None and (kind.classes or kind.compared)
    calibration, compared = split_examples(examples, LABELED if is_labeled else COMPARED)
    source = SourceModel(
        functional, None, _labels(request, interface, functional), lambda n: take_examples(calibration, n), scratch,
        metadata=interface,
    )  # fmt: skip
    samples = {"inputs": compared, "logits": _float32(_predictions(functional, compared))}
    if is_labeled:
        known = _class_numbers(labels, functional) if kind.classes else _rows(labels, functional)
        samples["labels"] = known[-count_examples(compared) :]
    return source, samples


def _opened(request: KerasRequest) -> _keras.Model:
    """Return the model of a file, or of a copy that the parent process wrote."""
    custom, path = resolve(request.custom), Path(request.path)
    with keras.saving.custom_object_scope(custom):
        if path.suffix == COPY:
            return read_copy(path)
        refusal = Refusal("Expected a Keras model", BadOption, ADVICE, f"model={path.name!r}")
        return open_model(path, refusal, custom=custom)


def _resized(model: _keras.Model, shape: Any) -> _keras.Model:
    """Return a model with fixed sizes of its inputs."""
    if shape is None:
        return model
    inputs = list(getattr(model, "inputs", None) or [])
    sizes = list(shape.values()) if isinstance(shape, dict) else [shape]
    if not inputs or len(sizes) != len(inputs):
        raise BadOption(
            f"input_shape must have the sizes of each input without the batch. Received: input_shape={shape!r} for "
            f"{len(inputs)} inputs."
        )
    fixed = [
        keras.Input(tuple(size), dtype=tensor.dtype, name=layer_name(tensor))
        for size, tensor in zip(sizes, inputs, strict=True)
    ]
    given = keras.tree.pack_sequence_as(model.input, fixed)
    return keras.Model(given, model(given), name=model.name)


def _shapes(given: Any) -> dict[str, tuple[Sequence[Any], str]]:
    """Return shape and dtype of examples by input."""
    named = given if isinstance(given, dict) else dict(enumerate(given or ()))
    return {
        name if isinstance(name, str) else f"input_{name}": ((None, *array.shape[1:]), _dtype(array))
        for name, array in named.items()
    }


def _dtype(array: Any) -> str:
    """Return the dtype of an input for examples: Python's own floats are float64, which no model needs."""
    return "float32" if array.dtype.kind == "f" else "string" if array.dtype.kind in "US" else array.dtype.name


def _examples(request: KerasRequest, given: Any, model: _keras.Model) -> Any:
    """Return the user's examples, or seeded noise."""
    inputs = named_inputs(model)
    if given is not None:
        return by_input(given, inputs)
    if request.calibration:
        return read_examples(Path(request.calibration), inputs)
    return noise(inputs, request.input_range, dict(embedded(model)))


def _task(request: KerasRequest, interface: Mapping[str, Any], model: _keras.Model, labels: Any) -> dict[str, Any]:
    """Return the task of the only output: as stated, or what its classes' names, its labels and its values show."""
    if "outputs" in interface:
        return {}
    width = (model.output.shape[-1] or 0) if len(model.output.shape) == 2 else 0
    shown = interface["task"]
    if width > 1 and request.labels:
        shown = CLASSIFY
    elif not task_of(shown).classes and width and labels is not None and labels.dtype.kind in "iubf":
        shown = _shown_by_labels(labels, width, is_sigmoid(model.output))
    return {"task": request.task or shown}


def _shown_by_labels(labels: Any, width: int, sigmoid: bool) -> str:
    """Return the task of outputs (n, width) with labels: of numbers alone, or of rows with one for each output."""
    rows = labels.reshape(len(labels), -1).astype("float64")
    fits = rows.shape[-1] == width
    marks = fits and np.isin(rows, (0, 1)).all()
    one_hot = marks and width > 1 and (rows.sum(-1) == 1).all()
    numbered = rows.shape[-1] == 1 and width > 1 and labels.dtype.kind in "iu"
    if numbered or (one_hot and not sigmoid):
        return CLASSIFY
    if marks:
        return BINARY
    return NUMERIC if fits else ANY


def _labels(request: KerasRequest, interface: Mapping[str, Any], model: _keras.Model) -> list[str]:
    """Return the names of the classes."""
    if not task_of(interface["task"]).classes:
        return []
    classes = model.output.shape[-1]
    names = list(request.labels) or list(map(str, range(classes)))
    if len(names) != classes:
        raise BadOption(f"labels must name {classes} classes. Received: {len(names)} names.")
    return names


def _class_numbers(labels: Any, model: _keras.Model) -> Any:
    """Return the number of the class of each example, from numbers or from one-hot rows."""
    classes = model.output.shape[-1]
    numbers = labels.argmax(-1) if labels.ndim == 2 and labels.shape[-1] == classes else labels.reshape(len(labels), -1)
    numbers = numbers[:, 0] if numbers.ndim == 2 else numbers
    if numbers.min() < 0 or numbers.max() >= classes:
        raise DataError(f"Labels must be from 0 to {classes - 1}. Received: {numbers.min()} to {numbers.max()}.")
    return numbers.astype("int64")


def _rows(labels: Any, model: _keras.Model) -> Any:
    """Return labels as float32 (n, outputs); raises DataError for others than one for each output."""
    width = model.output.shape[-1]
    if labels.dtype.kind not in "iubf" or labels.size != len(labels) * width:
        raise DataError(
            f"Labels must be numbers, {width} for each example. Received: shape={labels.shape}, dtype={labels.dtype}."
        )
    return labels.reshape(len(labels), width).astype("float32")


def _predictions(model: _keras.Model, inputs: Any) -> Any:
    """Return the outputs of a model; `predict` takes no arrays of strings."""
    if not any(array.dtype.kind == "U" for array in keras.tree.flatten(inputs)):
        return predict_in_batches(model, inputs)

    def called(batch: Any) -> Any:
        found = model(keras.tree.map_structure(tf.constant, batch), training=False)
        return keras.tree.map_structure(np.asarray, found)

    return in_batches(called, inputs, None)


def _float32(outputs: Any) -> Any:
    """Return outputs as artifacts are compared; those of integers and of truth values too."""
    return keras.tree.map_structure(lambda array: np.asarray(array, "float32"), outputs)
