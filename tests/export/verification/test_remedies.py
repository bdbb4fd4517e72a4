"""What a refusal names to try: from the registries, in order, and only what applies."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pytest

import export
from export.core.format import FormatRequest, formats, parse_format
from export.core.options import REMEDY, Options
from export.core.tolerance import FLOAT32_TOLERANCE, INT8_TOLERANCE
from export.verification.compared import Parity
from export.verification.gate import failed_limits
from export.verification.parity import require
from export.verification.remedies import Refusal, list_remedies
from zoo.common.errors import ParityError


def parity(tolerance=INT8_TOLERANCE, **changes):
    """Return a comparison with 12 of 400 examples lost."""
    found = {
        "n": 400, "max": 1.0, "mean": 0.1, "relative": 0.1, "agreement": 0.96, "metric": "accuracy", "snr": 18.0,
        "accuracy": 0.92, "source_accuracy": 0.95, "weighted_agreement": 0.99, "drop": 0.03,
        "drop_interval": [0.01, 0.05], "drop_p": 0.001, "sequence_agreement": None, "batches": (1,),
        "decided_by": "accuracy", "enough": True,
    } | changes  # fmt: skip
    failed = failed_limits(found, tolerance)
    return Parity(tolerance=tolerance, passed=not failed, failed=failed, **found)


UNLABELED = {
    "accuracy": None, "source_accuracy": None, "drop": None, "drop_interval": None, "drop_p": None,
    "weighted_agreement": 0.955, "decided_by": "agreement",
}  # fmt: skip


def remedies(text, *, trained=True, found=None, **more):
    """Return the texts of the remedies of a format."""
    found = list_remedies(Refusal(parse_format(text), "classify", found or parity(), trained, **more))
    return [remedy.text for remedy in found]


def quantized(name):
    """Return the remedies that are options of a calibrated format: each has one option more."""
    options = ("rounding=learned", "equalize=true", "calibration=best", "exclude=6")
    return [f'--format "{name}:{",".join(options[: count + 1])}"' for count in range(len(options))]


def test_int8_of_a_run():
    """Steps of quantization, 16-bit activations, weights alone, half precision, and the loss to allow."""
    assert remedies("tflite_int8") == [
        *quantized("tflite_int8"),
        "--compress mixed_precision",
        "--compress qat",
        "--format tflite_int16x8",
        "--format tflite_dynamic",
        "--format tflite_fp16",
        "--max-drop 3",
    ]


def test_int8_of_a_registry_model():
    """Calibration comes first; compressions need the data of a run."""
    assert remedies("onnx_int8", trained=False) == [
        "more, and more typical, examples with --calibration",
        *quantized("onnx_int8"),
        "--format onnx_dynamic",
        "--format onnx_fp16",
        "--max-drop 3",
    ]


def test_what_does_not_apply_is_left_out():
    """Steps that the pipeline has or that cannot follow it, formats that the spec excludes, steps of other formats."""
    found = remedies("tflite_int8", pipeline="fold | qat", unsupported={"tflite_int16x8": "no"})
    assert not {text for text in found if "int16x8" in text}
    assert [text for text in found if text.startswith("--compress")] == []
    assert '--compress "fold | qat"' in remedies("tflite_int8", pipeline="fold")
    assert "--compress mixed_precision" not in remedies("onnx_int8")
    assert "more, and more typical, examples with --calibration" not in remedies("tflite_dynamic", trained=False)


def test_float_formats_have_no_remedy():
    """Their tolerance is exact: the conversion is wrong."""
    assert remedies("onnx", found=parity(FLOAT32_TOLERANCE)) == []


def test_max_drop_is_named_if_it_helps():
    """Without labels it lowers the minimum agreement; it never excuses an error that breaks other limits."""
    assert remedies("tflite_int8", found=parity(**UNLABELED))[-1] == "--max-drop 2.1"
    for broken in ({"relative": 0.9}, {"snr": 1.0}, {"drop": 0.4}):
        assert not any(text.startswith("--max-drop") for text in remedies("tflite_int8", found=parity(**broken)))


def test_the_named_max_drop_passes():
    """The control: with that value the comparison is within tolerance, with a tenth less it is not."""
    for found in (parity(), parity(**UNLABELED)):
        points = float(remedies("tflite_int8", found=found)[-1].split()[-1])
        assert not failed_limits(vars(found), INT8_TOLERANCE.with_max_drop(points))
        assert failed_limits(vars(found), INT8_TOLERANCE.with_max_drop(points - 0.1))


def test_options_of_a_format_are_named(monkeypatch):
    """A format declares in an option's metadata which value helps; no remedy once it is chosen."""

    @dataclasses.dataclass(frozen=True)
    class Theirs(Options):
        ranges: Literal["minmax", "mse"] = dataclasses.field(default="minmax", metadata={REMEDY: "mse"})
        batch: int = 1

    fmt = dataclasses.replace(formats["tflite_int8"], options=Theirs)
    monkeypatch.setitem(formats._entries, "tflite_int8", fmt)

    def named(options):
        request = FormatRequest(fmt, options)
        found = list_remedies(Refusal(request, "classify", parity(), True))
        return [remedy.text for remedy in found if "mse" in remedy.text]

    assert named(Theirs(batch=4)) == ['--format "tflite_int8:ranges=mse,batch=4"']
    assert named(Theirs(ranges="mse")) == []


def test_every_lossy_format_has_a_remedy():
    """Their texts are options of `zoo export` with names from the registries."""
    lossy = [name for name in export.list_formats(exclude="their_*") if formats[name].tolerance.snr is not None]
    assert len(lossy) >= 6
    for name in lossy:
        found = remedies(name)
        assert found, name
        for text in found:
            option, _, value = text.partition(" ")
            if option == "--format":
                assert parse_format(value.strip('"')).text != name


def test_options_that_a_model_lacks_are_left_out():
    """Sequences have no calibration methods; with 7 bits there is no learned rounding."""
    refusal = Refusal(parse_format("tflite_int8"), "generate", parity(), False)
    texts = [remedy.text for remedy in list_remedies(refusal)]
    assert any("equalize=true" in text for text in texts)
    assert not any("calibration=" in text or "exclude=" in text for text in texts)
    assert not any("rounding=learned" in text for text in remedies("onnx_int8:reduce_range=true"))


def test_what_can_be_tried_without_the_user():
    """Options, compressions and formats have a request; calibration data and a larger loss are for the user."""
    found = list_remedies(Refusal(parse_format("onnx_int8:rounding=learned"), "classify", parity(), True))
    tried = {remedy.text: (remedy.request.text, remedy.pipeline) for remedy in found if remedy.request}
    assert tried["--compress qat"] == ("onnx_int8", "qat")
    assert tried["--format onnx_dynamic"] == ("onnx_dynamic", "")
    assert [remedy.text for remedy in found if not remedy.request] == ["--max-drop 3"]


def test_the_message_names_them_in_order():
    """One line with the metrics and the remedies; without a refusal nothing is raised."""
    with pytest.raises(ParityError, match=r"points\). Try, in this order: --compress qat; --max-drop 3$") as error:
        require(parity(), "it", ["--compress qat", "--max-drop 3"])
    assert "\n" not in str(error.value)
    require(parity(drop=0.0, drop_interval=[-0.01, 0.01], drop_p=1.0), "it", ["--compress qat"])
