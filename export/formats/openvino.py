"""OpenVINO in float32, for Intel's processors, GPUs and NPUs.

OpenVINO's own converter makes the network from the ONNX file. Keras 3.15's own exporter is not used: it calls every
output "Identity:0", and gives a network with SiLU (EfficientNet) one more output for each of them; measured on
ResNet-50 and the small networks, both ways run equally fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.backends.onnx.convert import files_of as onnx_files
from export.backends.onnx.options import PACKAGES
from export.backends.onnx.rules import RULES
from export.backends.openvino.runtime import (
    PLAIN,
    OpenVinoOptions,
    OpenVinoRuntime,
    OpenVinoWriter,
    convert,
    files_of,
    save,
)
from export.core.format import FLOAT, Backend, register

if TYPE_CHECKING:
    from export.source.source import Source


def write(source: Source, path: Path, options: OpenVinoOptions = PLAIN) -> None:
    """Write model.xml and model.bin, or those of an encoder and a decoder.

    Args:
        source: what to export.
        path: the folder.
        options: what was asked for.

    Raises:
        UnsupportedExport: the model has an operator that ONNX lacks.
    """
    graphs = dict(onnx_files(source, source.shared("onnx")))
    for part, file in files_of(source, path):
        save(convert(graphs[part]), source, part, file, options)


register(
    "openvino",
    file="",
    write=write,
    load=OpenVinoRuntime,
    tolerance=FLOAT,
    summary="OpenVINO, float32, free batch, for Intel's processors, GPUs and NPUs; needs keras-zoo[openvino]",
    generate=Backend("", write, OpenVinoWriter, FLOAT),
    options=OpenVinoOptions,
    rules=RULES,
    packages=(*PACKAGES, "openvino"),
)
