"""LiteRT (.tflite), float32, with a static batch and builtin operators; the other LiteRT formats are converted from it.

A sequence-to-sequence model is one file with the signatures `encode` and `decode`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.litert.file import finish
from export.backends.litert.options import FloatOptions, register_litert
from export.core import compat
from export.core.options import with_options
from export.core.quiet import quiet
from export.core.tolerance import FLOAT32_TOLERANCE
from zoo.common.errors import UnsupportedExport
from zoo.common.lazy import tf

if TYPE_CHECKING:
    from export.source.source import Part, SourceModel

PLAIN = FloatOptions()


def write(source: SourceModel, path: Path, options: FloatOptions = PLAIN) -> None:
    """Write a float32 .tflite with a static batch and the signature `serving_default`, or one for each part.

    Args:
        source: the model to convert.
        path: file to write.
        options: the format's options.

    Raises:
        UnsupportedExport: the model has an operator that is no LiteRT builtin.
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
        except compat.converter_error() as error:
            raise UnsupportedExport(
                "LiteRT supports builtin operators only. "
                f"Received: operators={_unsupported_operators(str(error))}. Use layers with operators that LiteRT has."
            ) from error
    finish(content, with_options(source.metadata, options), path)


def _trace(part: Part, options: FloatOptions) -> Any:
    """Return a part as a concrete function of a batch, named after its signature."""
    shapes = {name: (options.batch, *shape) for name, (shape, _) in part.inputs.items()}
    dtypes = {name: dtype for name, (_, dtype) in part.inputs.items()}
    inputs = {name: options.input if dtype == "float32" else dtype for name, dtype in dtypes.items()}
    specs = {name: tf.TensorSpec(shape, inputs[name], name) for name, shape in shapes.items()}

    def serve(**values: Any) -> dict[str, Any]:
        return part(**{name: tf.cast(value, dtypes[name]) for name, value in values.items()})

    serve.__name__ = part.name
    return tf.function(serve, autograph=False).get_concrete_function(**specs)


def _unsupported_operators(message: str) -> str:
    """Return the operators in the converter's message, or its first line."""
    names = re.findall(r"(?:TF Select|Flex|Custom) ops: (.+)", message)
    return ", ".join(names) or message.strip().partition("\n")[0]


register_litert(
    "tflite",
    write,
    tolerance=FLOAT32_TOLERANCE,
    options=FloatOptions,
    summary="LiteRT, float32, static batch",
)
