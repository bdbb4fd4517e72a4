"""qat: the network learns to live with int8 arithmetic, which is imitated while it trains on."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.litert import file as litert_file
from export.backends.litert.options import IntegerOptions
from export.backends.litert.quantize import ship
from export.compression import quantization_aware
from export.compression.batch_norm_folding import fold
from export.compression.guarantees import count_zeros
from export.compression.workbench import Workbench, check_classes, check_training, check_values, epochs_of
from export.core.compression import CLOSED, INTEGER, Compression, register
from export.core.format import name_input
from zoo.common.errors import BadOption, ParityError
from zoo.common.files import write_bytes
from zoo.common.lazy import LazyModule, np, tf

if TYPE_CHECKING:
    import keras as _keras

    from export.source.source import Source

schema = LazyModule("ai_edge_litert.schema_py_generated", "ai-edge-litert")

PLAIN = IntegerOptions()
SHARE = 0.1  # of the recipe's epochs
FORMAT, FILE = "tflite_int8", "int8.tflite"
SIGNATURE = b"serving_default"


@dataclasses.dataclass(frozen=True)
class Options:
    """How training goes on.

    Args:
        epochs: how long, 0 for a tenth of the recipe's.
        rate: share of the recipe's learning rate.
    """

    epochs: int = 0
    rate: float = 0.05

    def __post_init__(self) -> None:
        check_training(self.epochs, self.rate)


def plan(network: _keras.Model, _options: Options, workbench: Workbench) -> _keras.Model:
    """Return the network without batch normalization; raises UnsupportedExport for a layer without imitation."""
    check_values(network, "Quantization-aware training")
    check_classes(network, workbench, "Quantization-aware training")
    quantization_aware.check(network)
    return fold(network)


def apply(network: _keras.Model, options: Options, workbench: Workbench) -> _keras.Model:
    """Return the network without batch normalization and with the weights learnt, and leave its int8 in the folder."""
    train, epochs = workbench.twin_trainer(options.rate), epochs_of(options, workbench, SHARE)
    model = quantization_aware.quantize_aware(network, workbench.calibration, train, epochs=epochs)
    raw, _ = workbench.pipeline.raw("train", len(workbench.calibration))
    shape = network.input_shape[1:]
    names = (name_input(network.inputs[0].name, shape), "logits")
    content = quantization_aware.to_int8(
        model, functools.partial(_serve, workbench.pipeline.preprocessing, raw), (1, *shape), names
    )
    write_bytes(workbench.folder / FILE, _signed(content, names))
    folded = fold(network)
    quantization_aware.bring_back(model, folded)
    return folded


def _serve(preprocessing: Any, raw: Any, model: Any, inputs: Any) -> Any:
    """Return the logits of raw values, whose preprocessing is int8 too."""
    low, high = (0.0, 255.0) if raw.ndim == 4 else (min(float(raw.min()), 0.0), float(raw.max()))
    scale, offset = (np.asarray(values, "float32") for values in preprocessing.affine())
    x = _imitated(inputs, low, high)
    if (scale != 1).any():
        ends = np.stack([low * scale, high * scale])
        x = _imitated(x * scale, ends.min(), ends.max())
    if (offset != 0).any():
        ends = np.stack([low * scale, high * scale]) + offset
        x = _imitated(x + offset, ends.min(), ends.max())
    return model(x, training=False)


def _imitated(x: Any, low: float, high: float) -> Any:
    """Return values rounded as int8 rounds them in a range."""
    return tf.quantization.fake_quant_with_min_max_args(x, min(float(low), 0.0), max(float(high), 0.0))


def _signed(content: bytes, names: tuple[str, str]) -> bytes:
    """Return a .tflite with a signature, which the converter leaves out where there are no variables."""
    model = litert_file.read(content)
    graph = model.subgraphs[0]
    if not model.signatureDefs:
        made = schema.SignatureDefT()
        made.signatureKey, made.subgraphIndex = SIGNATURE, 0
        made.inputs, made.outputs = (
            [_named(n, i)] for n, i in zip(names, (*graph.inputs, *graph.outputs), strict=True)
        )
        model.signatureDefs = [made]
    return bytes(litert_file.pack(model))


def _named(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), int(index)
    return entry


def guarantees(network: _keras.Model, _options: Options) -> dict[str, Any]:
    """Claim the zeros that stayed, if there are any; what is int8 is looked up by `inspect`."""
    zeros = {path: count for path, count in count_zeros(network).items() if count}
    return {"zeros": zeros} if zeros else {}


def writers(_options: Options, workbench: Workbench) -> Mapping[str, Callable[..., None]]:
    """Return the int8 format, whose ranges and weights are those that were learnt."""

    def write(source: Source, path: Path, options: IntegerOptions = PLAIN) -> None:
        if options.batch != 1:
            raise BadOption(f"What qat learnt is written for one example at a time. Received: batch={options.batch}")
        ship((workbench.folder / FILE).read_bytes(), source, path, options)

    return {FORMAT: write}


def inspect(fmt: str, path: Path, _facts: dict[str, Any]) -> dict[str, Any]:
    """Return how many tensors are int8 and how many float in the int8 format; raise ParityError if any is float."""
    if fmt != FORMAT:
        return {}
    kinds = schema.TensorType
    graphs = litert_file.read(path.read_bytes()).subgraphs
    # Input and output are what was asked for.
    tensors = [t for graph in graphs for i, t in enumerate(graph.tensors) if i not in (*graph.inputs, *graph.outputs)]
    floats = [litert_file.name_of(t) for t in tensors if t.type in (kinds.FLOAT32, kinds.FLOAT16)]
    if floats:
        raise ParityError(f"All tensors of {path.name} are claimed to be int8. Received: float tensors={floats[:5]}")
    return {"int8_tensors": sum(t.type == kinds.INT8 for t in tensors), "float_tensors": 0}


register(
    Compression(
        name="qat",
        options=Options,
        first=(),
        plan=plan,
        apply=apply,
        guarantees=guarantees,
        stage=INTEGER,
        then=CLOSED,
        summary="qat: training with imitated int8; tflite_int8 is what was learnt, other formats take the weights",
        writers=writers,
        inspect=inspect,
        packages=("tensorflow_model_optimization", "tf_keras", "ai_edge_litert"),
    )
)
