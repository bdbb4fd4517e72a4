"""qat: quantization-aware training, fine-tuning with simulated int8 arithmetic."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.litert import file as litert_file
from export.backends.litert.options import IntegerOptions
from export.backends.litert.quantize import write_integer
from export.compression.batch_norm_folding import fold
from export.compression.guarantees import count_zeros
from export.compression.quantization import quantization_aware
from export.compression.workbench import check_classifier, check_float_input, check_training, epochs_of
from export.core.compression import FINAL, QUANTIZED, Compression, Workbench, register
from export.core.metadata import input_name
from zoo.common.errors import BadOption, ParityError
from zoo.common.files import write_bytes
from zoo.common.lazy import LazyModule, np, tf

if TYPE_CHECKING:
    import keras as _keras

    from export.source.source import SourceModel

schema = LazyModule("ai_edge_litert.schema_py_generated", "ai-edge-litert")

DEFAULT_OPTIONS = IntegerOptions()
EPOCHS_FRACTION = 0.1  # of the recipe's epochs
FORMAT, FILE = "tflite_int8", "int8.tflite"
SIGNATURE = b"serving_default"


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of fine-tuning.

    Args:
        epochs: number of epochs, 0 for a tenth of the recipe's.
        rate: fraction of the recipe's learning rate.
    """

    epochs: int = 0
    rate: float = 0.05

    def __post_init__(self) -> None:
        check_training(self.epochs, self.rate)


def plan(model: _keras.Model, _options: Options, workbench: Workbench) -> _keras.Model:
    """Return the model without batch normalization; raises UnsupportedExport for an unsupported layer."""
    check_float_input(model, "Quantization-aware training")
    check_classifier(model, workbench, "Quantization-aware training")
    quantization_aware.check_support(model)
    return fold(model)


def apply(model: _keras.Model, options: Options, workbench: Workbench) -> _keras.Model:
    """Return the model without batch normalization, with the trained weights; saves its int8 file in the folder."""
    train, epochs = workbench.tf_keras_trainer(options.rate), epochs_of(options, workbench, EPOCHS_FRACTION)
    quantized = quantization_aware.quantize_aware(model, workbench.calibration, train, epochs=epochs)
    raw, _ = workbench.data.raw("train", len(workbench.calibration))
    shape = model.input_shape[1:]
    names = (input_name(model.inputs[0].name, shape), "logits")
    content = quantization_aware.to_int8(
        quantized, functools.partial(_serve, workbench.data.preprocessing, raw), (1, *shape), names
    )
    write_bytes(workbench.folder / FILE, _with_signature(content, names))
    folded = fold(model)
    quantization_aware.copy_weights_back(quantized, folded)
    return folded


def _serve(preprocessing: Any, raw: Any, model: Any, inputs: Any) -> Any:
    """Return the logits of raw values, with preprocessing in simulated int8."""
    low, high = (0.0, 255.0) if raw.ndim == 4 else (min(float(raw.min()), 0.0), float(raw.max()))
    scale, offset = (np.asarray(values, "float32") for values in preprocessing.affine())
    x = _fake_quantized(inputs, low, high)
    if (scale != 1).any():
        ends = np.stack([low * scale, high * scale])
        x = _fake_quantized(x * scale, ends.min(), ends.max())
    if (offset != 0).any():
        ends = np.stack([low * scale, high * scale]) + offset
        x = _fake_quantized(x + offset, ends.min(), ends.max())
    return model(x, training=False)


def _fake_quantized(x: Any, low: float, high: float) -> Any:
    """Return values with simulated int8 rounding in a range."""
    return tf.quantization.fake_quant_with_min_max_args(x, min(float(low), 0.0), max(float(high), 0.0))


def _with_signature(content: bytes, names: tuple[str, str]) -> bytes:
    """Return a .tflite with a signature, which the converter omits for a model without variables."""
    model = litert_file.read(content)
    graph = model.subgraphs[0]
    if not model.signatureDefs:
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = SIGNATURE, 0
        signature.inputs, signature.outputs = (
            [_tensor_map(n, i)] for n, i in zip(names, (*graph.inputs, *graph.outputs), strict=True)
        )
        model.signatureDefs = [signature]
    return bytes(litert_file.pack(model))


def _tensor_map(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), int(index)
    return entry


def guarantees(model: _keras.Model, _options: Options) -> dict[str, Any]:
    """Return the zeros, if there are any; `inspect` checks that all tensors are int8."""
    zeros = {path: count for path, count in count_zeros(model).items() if count}
    return {"zeros": zeros} if zeros else {}


def writers(_options: Options, workbench: Workbench) -> Mapping[str, Callable[..., None]]:
    """Return the writer of the int8 format, with the trained ranges and weights."""

    def write(source: SourceModel, path: Path, options: IntegerOptions = DEFAULT_OPTIONS) -> None:
        if options.batch != 1:
            raise BadOption(f"qat supports batch=1 only. Received: batch={options.batch}")
        write_integer((workbench.folder / FILE).read_bytes(), source, path, options)

    return {FORMAT: write}


def inspect(fmt: str, path: Path, _facts: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of int8 and float tensors of the int8 format; raises ParityError for a float tensor."""
    if fmt != FORMAT:
        return {}
    kinds = schema.TensorType
    graphs = litert_file.read(path.read_bytes()).subgraphs
    # Input and output have the requested dtypes.
    tensors = [t for graph in graphs for i, t in enumerate(graph.tensors) if i not in (*graph.inputs, *graph.outputs)]
    floats = [litert_file.name_of(t) for t in tensors if t.type in (kinds.FLOAT32, kinds.FLOAT16)]
    if floats:
        raise ParityError(f"Expected only int8 tensors in {path.name}. Received: float tensors={floats[:5]}")
    return {"int8_tensors": sum(t.type == kinds.INT8 for t in tensors), "float_tensors": 0}


register(
    Compression(
        name="qat",
        options=Options,
        positional=(),
        plan=plan,
        apply=apply,
        guarantees=guarantees,
        stage=QUANTIZED,
        next_stage=FINAL,
        summary="qat: quantization-aware training; tflite_int8 gets the trained ranges, other formats the weights",
        writers=writers,
        inspect=inspect,
        packages=("tensorflow_model_optimization", "tf_keras", "ai_edge_litert"),
    )
)
