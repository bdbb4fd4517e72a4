"""OpenVINO in float32, for Intel CPUs, GPUs and NPUs.

OpenVINO's converter reads the ONNX file. The exporter of Keras 3.15 is not used: it names every output "Identity:0",
and adds an output for each SiLU of a model (EfficientNet). On ResNet-50 and the small models both run equally fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.backends.onnx.convert import files_of as onnx_files
from export.backends.onnx.options import PACKAGES
from export.backends.onnx.rules import RULES
from export.backends.openvino.runtime import (
    PLAIN,
    OpenVinoGenerator,
    OpenVinoOptions,
    OpenVinoRuntime,
    convert,
    files_of,
    save,
)
from export.core.format import Backend, register
from export.core.tolerance import FLOAT32_TOLERANCE

if TYPE_CHECKING:
    from export.source.source import SourceModel


def write(source: SourceModel, path: Path, options: OpenVinoOptions = PLAIN) -> None:
    """Write model.xml and model.bin, or those of an encoder and a decoder.

    Args:
        source: the model to convert.
        path: the folder.
        options: the format's options.

    Raises:
        UnsupportedExport: ONNX lacks an operator of the model.
    """
    graphs = dict(onnx_files(source, source.artifact_path("onnx")))
    for part, file in files_of(source, path):
        save(convert(graphs[part]), source, part, file, options)


register(
    "openvino",
    file="",
    write=write,
    load=OpenVinoRuntime,
    tolerance=FLOAT32_TOLERANCE,
    summary="OpenVINO, float32, dynamic batch, for Intel CPUs, GPUs and NPUs; needs keras-zoo[openvino]",
    generate=Backend("", write, OpenVinoGenerator, FLOAT32_TOLERANCE),
    options=OpenVinoOptions,
    rules=RULES,
    loops=False,
    packages=(*PACKAGES, "openvino"),
)
