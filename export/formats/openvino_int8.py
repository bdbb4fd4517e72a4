"""OpenVINO with int8 weights and activations, by NNCF's post-training quantization."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.backends.onnx.convert import files_of as onnx_files
from export.backends.onnx.options import PACKAGES
from export.backends.onnx.rules import RULES
from export.backends.openvino.histograms import tighten
from export.backends.openvino.negative_scales import split_negative_scales
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
from export.backends.openvino.smoothing import ALPHA, UNSMOOTHED, closest
from export.core import compat
from export.core.format import Backend, register
from export.core.layer_names import matching
from export.core.tolerance import INT8_TOLERANCE
from export.quantization.options import LEARNED, QuantizationOptions
from export.quantization.write import Chosen, write_quantized
from zoo.common.lazy import LazyModule, require

if TYPE_CHECKING:
    from export.source.source import SourceModel

nncf = LazyModule("nncf", "nncf", EXTRA)
estimators = LazyModule("nncf.quantization.range_estimator", "nncf", EXTRA)
parameters = LazyModule("nncf.quantization.advanced_parameters", "nncf", EXTRA)
patterns = LazyModule("nncf.openvino.quantization.ignored_patterns", "nncf", EXTRA)

CALIBRATION_EXAMPLES = 128  # one at a time
WEIGHTED = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"}


@dataclasses.dataclass(frozen=True)
class Int8Options(QuantizationOptions, OpenVinoOptions):
    """Options of the int8 OpenVINO format.

    Args:
        reduce_range: use 7 of the 8 bits of weights, except depthwise ones, so that x86 without VNNI does not saturate.
            By default the first layer alone has 7 bits, and none with `rounding=learned`.
    """

    reduce_range: bool = False

    def check(self, metadata: Mapping[str, Any]) -> None:
        """Raise MissingDependency if OpenVINO or NNCF is not installed, before anything is converted."""
        super().check(metadata)
        require("nncf", extra=EXTRA)


PLAIN = Int8Options()


def write(source: SourceModel, path: Path, options: Int8Options = PLAIN) -> dict[str, Any]:
    """Write model.xml and model.bin with per-channel int8 weights, or those of an encoder and a decoder.

    Args:
        source: the model to convert; its calibration data gives the activation ranges.
        path: the folder.
        options: the format's options.

    Returns:
        How it was quantized, for the manifest.

    Raises:
        UnsupportedExport: ONNX lacks an operator of the model.
    """

    def write(source: SourceModel, path: Path, chosen: Chosen) -> None:
        path.mkdir(exist_ok=True)
        _write(source, path, options, chosen)

    return write_quantized(write, OpenVinoRuntime, source, path, options)


def _write(source: SourceModel, path: Path, options: Int8Options, chosen: Chosen) -> None:
    """Write the files with what was chosen on the calibration data."""
    graphs = dict(onnx_files(source, source.artifact_path("onnx")))
    for part, file in files_of(source, path):
        examples = list(itertools.islice(source.feeds(part, 1), CALIBRATION_EXAMPLES))
        model = _smoothed(graphs[part], examples, options, chosen)
        tighten(model, examples, chosen.calibration)
        save(model, source, part, file, options)


def _smoothed(graph: Path, examples: list[dict[str, Any]], options: Int8Options, chosen: Chosen) -> Any:
    """Return the quantized model of an ONNX file; of a transformer the closest one, with smoothing or without."""
    exact = convert(graph)
    attention = any(node.get_type_name() == "Softmax" for node in exact.get_ops())
    if not attention:
        return _quantize(exact, examples, options, chosen)
    models = (_quantize(convert(graph), examples, options, chosen, alpha) for alpha in (ALPHA, UNSMOOTHED))
    return closest(models, exact, examples)


def _quantize(
    model: Any, examples: list[dict[str, Any]], options: Int8Options, chosen: Chosen, alpha: float | None = None
) -> Any:
    """Return the model with int8 weights, and activations quantized at the ranges of the examples.

    Args:
        model: the float model.
        examples: calibration data.
        options: the options of the format.
        chosen: what was chosen on the calibration data.
        alpha: of a transformer: the exponent of the smoothing, see `export.backends.openvino.smoothing`.
    """
    floats = matching([node.get_friendly_name() for node in model.get_ops()], chosen.excluded, chosen.layers)
    with silent(), compat.nncf_quantizes_squeeze_and_excitation():
        nncf.set_log_level(logging.ERROR)
        quantized = nncf.quantize(
            model,
            nncf.Dataset(examples),
            subset_size=len(examples),
            model_type=None if alpha is None else nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=[*_preprocessing(model), *floats], validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                # NNCF's default clips ranges at the mean of the examples' extremes.
                activations_range_estimator_params=estimators.RangeEstimatorParametersSet.MINMAX,
                # NNCF's fast bias correction sees single layers: 7 times the squared error of ResNet-20's logits.
                disable_bias_correction=True,
                overflow_fix=_overflow_fix(options),
                **({} if alpha is None else {"smooth_quant_alphas": _alphas(alpha)}),
                weights_quantization_params=parameters.QuantizationParameters(per_channel=options.per_channel),
            ),
        )
    split_negative_scales(quantized)
    return quantized


def _alphas(alpha: float) -> Any:
    return parameters.AdvancedSmoothQuantParameters(convolution=UNSMOOTHED, matmul=alpha)


def _overflow_fix(options: Int8Options) -> Any:
    """Return for which weights 7 of the 8 bits are used; NNCF's default is the first layer."""
    if options.reduce_range:
        return nncf.OverflowFix.ENABLE
    return nncf.OverflowFix.DISABLE if options.rounding == LEARNED else None


def _preprocessing(model: Any) -> list[str]:
    """Return the names of the operators before the first layers with weights."""
    # They normalize raw values: int8 would add two roundings and save no time.
    raw, names = set(), []
    for node in model.get_ordered_ops():
        kind, name = node.get_type_name(), node.get_friendly_name()
        inputs = {value.get_node().get_friendly_name() for value in node.input_values()}
        if kind in ("Parameter", "Constant"):
            raw.add(name)
        elif kind not in WEIGHTED and kind != "Result" and inputs <= raw:
            raw.add(name)
            names.append(name)
    return names


register(
    "openvino_int8",
    file="",
    write=write,
    load=OpenVinoRuntime,
    tolerance=INT8_TOLERANCE,
    summary="OpenVINO, per-channel int8 weights and int8 activations (NNCF), calibrated; needs keras-zoo[openvino]",
    generate=Backend("", write, OpenVinoGenerator, INT8_TOLERANCE.for_sequences()),
    options=Int8Options,
    guarantees=("int8",),
    rules=RULES,
    loops=False,
    packages=(*PACKAGES, "openvino", "nncf"),
)
