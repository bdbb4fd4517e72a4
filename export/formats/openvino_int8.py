"""OpenVINO with int8 weights and activations, by the post-training quantization of NNCF."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.onnx.convert import files_of as onnx_files
from export.backends.onnx.options import PACKAGES
from export.backends.onnx.rules import RULES
from export.backends.openvino.runtime import (
    EXTRA,
    OpenVinoGenerator,
    OpenVinoOptions,
    OpenVinoRuntime,
    convert,
    files_of,
    save,
    silent,
)
from export.core.format import INTEGER, Backend, register
from zoo.common.lazy import LazyModule, require

if TYPE_CHECKING:
    from export.source.source import SourceModel

nncf = LazyModule("nncf", "nncf", EXTRA)
estimators = LazyModule("nncf.quantization.range_estimator", "nncf", EXTRA)
patterns = LazyModule("nncf.openvino.quantization.ignored_patterns", "nncf", EXTRA)

CALIBRATED = 128  # examples, one at a time
WEIGHTED = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"}


@dataclasses.dataclass(frozen=True)
class Int8Options(OpenVinoOptions):
    """Options of OpenVINO networks in int8."""

    def check(self, facts: Mapping[str, Any]) -> None:
        """Raise MissingDependency if OpenVINO or its quantizer is not installed, before anything is converted."""
        super().check(facts)
        require("nncf", extra=EXTRA)


PLAIN = Int8Options()


def write(source: SourceModel, path: Path, options: Int8Options = PLAIN) -> None:
    """Write model.xml and model.bin with int8 weights by channel, or those of an encoder and a decoder.

    Args:
        source: what to export; its calibration data gives the ranges of the activations.
        path: the folder.
        options: what was asked for.

    Raises:
        UnsupportedExport: the model has an operator that ONNX lacks.
    """
    graphs = dict(onnx_files(source, source.artifact_path("onnx")))
    for part, file in files_of(source, path):
        examples = list(itertools.islice(source.feeds(part, 1), CALIBRATED))
        save(_quantize(convert(graphs[part]), examples), source, part, file, options)


def _quantize(network: Any, examples: list[dict[str, Any]]) -> Any:
    """Return the network with weights in int8 and activations rounded to ranges seen on examples."""
    attention = any(node.get_type_name() == "Softmax" for node in network.get_ops())
    with silent(), _gates_too():
        nncf.set_log_level(logging.ERROR)
        return nncf.quantize(
            network,
            nncf.Dataset(examples),
            subset_size=len(examples),
            model_type=nncf.ModelType.TRANSFORMER if attention else None,
            ignored_scope=nncf.IgnoredScope(names=_normalization(network), validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                # By itself NNCF cuts ranges at the mean of the examples' extremes.
                activations_range_estimator_params=estimators.RangeEstimatorParametersSet.MINMAX,
                # NNCF's quick one judges layers alone: the squared error of ResNet-20's logits was 7 times as large.
                disable_bias_correction=True,
            ),
        )


@contextlib.contextmanager
def _gates_too() -> Iterator[None]:
    """Have NNCF quantize squeeze-and-excitation meanwhile, whose convolutions it leaves in floating point by itself."""
    kept = dict(patterns.OPENVINO_IGNORED_PATTERNS.registry_dict)
    del patterns.OPENVINO_IGNORED_PATTERNS.registry_dict[patterns.IgnoredPatternNames.SE_BLOCK]
    try:
        yield
    finally:
        patterns.OPENVINO_IGNORED_PATTERNS.registry_dict.update(kept)


def _normalization(network: Any) -> list[str]:
    """Return the names of the operators before the first layers with weights."""
    # They scale raw values: int8 would round there twice more and save no time.
    raw, names = set(), []
    for node in network.get_ordered_ops():
        kind, name = node.get_type_name(), node.get_friendly_name()
        given = {value.get_node().get_friendly_name() for value in node.input_values()}
        if kind in ("Parameter", "Constant"):
            raw.add(name)
        elif kind not in WEIGHTED and kind != "Result" and given <= raw:
            raw.add(name)
            names.append(name)
    return names


register(
    "openvino_int8",
    file="",
    write=write,
    load=OpenVinoRuntime,
    tolerance=INTEGER,
    summary="OpenVINO, int8 weights by channel and int8 activations (NNCF), calibrated; needs keras-zoo[openvino]",
    generate=Backend("", write, OpenVinoGenerator, INTEGER.of_sequences()),
    options=Int8Options,
    guarantees=("int8",),
    rules=RULES,
    packages=(*PACKAGES, "openvino", "nncf"),
)
