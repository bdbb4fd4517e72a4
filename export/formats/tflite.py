"""LiteRT (.tflite), float32, with a fixed batch and builtin operators; the other LiteRT formats are made from it.

A network that writes sequences is one file with the signatures `encode` and `decode`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.litert.file import finish
from export.backends.litert.options import FloatOptions, register_litert
from export.backends.litert.runtime import LiteRuntime as LiteRuntime
from export.core.format import FLOAT
from export.core.options import described
from export.core.quiet import quiet
from zoo.common.errors import UnsupportedExport
from zoo.common.lazy import LazyModule, tf

if TYPE_CHECKING:
    from export.source.source import Part, Source

convert_phase = LazyModule("tensorflow.lite.python.convert_phase")
PLAIN = FloatOptions()


def write(source: Source, path: Path, options: FloatOptions = PLAIN) -> None:
    """Write a float32 .tflite with a fixed batch and the signature `serving_default`, or one for each part.

    Args:
        source: what to export.
        path: file to write.
        options: what was asked for.

    Raises:
        UnsupportedExport: the model has an operator that is not among LiteRT's builtin ones.
    """
    module = tf.Module()
    module.weights = [variable.value for variable in source.model.variables]
    with quiet():
        parts = [_trace(part, options) for part in source.parts]
        converter = tf.lite.TFLiteConverter.from_concrete_functions(parts, module)
        if options.flex:
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
        try:
            content = converter.convert()
        except convert_phase.ConverterError as error:
            raise UnsupportedExport(
                "LiteRT needs builtin operators only. "
                f"Received: operators={_foreign_operators(str(error))}. Write the layer with operators that LiteRT has."
            ) from error
    finish(content, described(source.metadata, options), path)


def _trace(part: Part, options: FloatOptions) -> Any:
    """Return a part as a concrete function of a batch; a converter of several calls their signatures by name."""
    shapes = {name: (options.batch, *shape) for name, (shape, _) in part.inputs.items()}
    dtypes = {name: dtype for name, (_, dtype) in part.inputs.items()}
    given = {name: options.input if dtype == "float32" else dtype for name, dtype in dtypes.items()}
    specs = {name: tf.TensorSpec(shape, given[name], name) for name, shape in shapes.items()}

    def serve(**values: Any) -> dict[str, Any]:
        return part(**{name: tf.cast(value, dtypes[name]) for name, value in values.items()})

    serve.__name__ = part.name
    return tf.function(serve, autograph=False).get_concrete_function(**specs)


def _foreign_operators(message: str) -> str:
    """Return the operators that the converter's message complains about, or its first line."""
    named = re.findall(r"(?:TF Select|Flex|Custom) ops: (.+)", message)
    return ", ".join(named) or message.strip().partition("\n")[0]


register_litert(
    "tflite",
    write,
    tolerance=FLOAT,
    options=FloatOptions,
    summary="LiteRT, float32, static batch",
)
