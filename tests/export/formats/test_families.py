"""Every family is exported to every format, run in the real runtime, and compared with Keras."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import zoo
from export.conversion.pipeline import unsupported_reason
from export.core.format import formats, parse_format
from export.core.guarantees import check_guarantees
from export.core.samples import read_samples, take_examples
from export.inspection.inspect import read_artifact

FLOAT = ("saved_model", "tflite", "onnx")
TINY = [name for name in zoo.list_models() if zoo.spec(name).params < 400_000]
LARGE = {family: [n for n in zoo.list_models(family=family) if n not in TINY] for family in zoo.list_families()}
FIRST = [names[0] for names in LARGE.values() if names]
# Converted to every format in `make test`, one that takes features and one that takes ids; the others in
# `make test-all`. The digits' artifacts are of a model that takes images.
SPANNING = ("mlp_tiny", "tagger_tiny")
GENERATORS = [name for name in TINY if zoo.spec(name).task == "generate"]
SLOW = pytest.mark.slow
VIT = "vit_small_patch16_224"
ATTENTION = [name for name in TINY if "attention" in zoo.spec(name).tags]


@pytest.fixture(scope="module")
def converted(tmp_path_factory, python):
    """Convert models to the formats of each in a child process; returns a folder with one sub-folder for each."""

    def run(wanted):
        folder = tmp_path_factory.mktemp("converted")
        script = Path(__file__).with_name("convert_families.py")
        process = python(script, folder, *(f"{name}={','.join(chosen)}" for name, chosen in wanted.items()), warm=True)
        _, err = process.communicate(timeout=900)
        assert process.returncode == 0, err
        return folder

    return run


@pytest.fixture(scope="module")
def tiny(converted):
    """The spanning small models in all formats, and the sequence-to-sequence models in one."""
    return converted(dict.fromkeys(GENERATORS, FLOAT[-1:]) | dict.fromkeys(SPANNING, formats.names(exclude="their_*")))


@pytest.fixture(scope="module")
def others(converted):
    """The other small models in all formats."""
    names = [name for name in TINY if name not in SPANNING]
    return converted(dict.fromkeys(names, formats.names(exclude="their_*")))


def loaded(folder, fmt):
    """The artifact in its runtime, and the backend of its format."""
    backend = formats[fmt].backend(zoo.spec(folder.name).task)
    return backend.load(folder / fmt / backend.file), backend


def off(folder, fmt):
    """The largest error of the artifact on real tokens, as a fraction of the largest logit."""
    samples, (runtime, _) = read_samples(folder / "samples.npz"), loaded(folder, fmt)
    real, logits = samples["labels"][:2] >= 0, samples["logits"][:2]
    return np.abs(runtime(take_examples(samples["inputs"], 2)) - logits)[real].max() / np.abs(logits[real]).max()


@pytest.fixture
def small(name, request):
    """The folder of one small model."""
    return request.getfixturevalue("tiny" if name in SPANNING else "others") / name


def offered(name):
    """The formats that neither the spec nor the format rules out."""
    return [
        fmt for fmt in formats.names(exclude="their_*") if not unsupported_reason(zoo.spec(name), parse_format(fmt))
    ]


def marked(names):
    """The names; those outside SPANNING are slow."""
    return [name if name in SPANNING else pytest.param(name, marks=SLOW) for name in names]


@pytest.mark.parametrize("name", marked(TINY))
def test_small_models_are_exported_as_every_format(name, small):
    """Artifacts have the guarantees of their format and are within tolerance, or the spec refuses the format."""
    names = formats.names(exclude="their_*")
    assert {path.stem for path in small.glob("*.txt")} == set(names) - set(offered(name))
    for fmt in offered(name):
        backend = loaded(small, fmt)[1]
        assert off(small, fmt) <= backend.tolerance.relative, fmt
        facts = {"format": fmt, "options": {}, "metadata": {}, "compression": None}
        check_guarantees(read_artifact(small / fmt / backend.file).graph, formats[fmt].guarantees, facts)


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize(("made", "fmt"), [
    ("tiny", FLOAT[-1]), *(pytest.param("others", fmt, marks=SLOW) for fmt in FLOAT[:-1]),
])  # fmt: skip
def test_sequences_are_equal_in_every_runtime(name, made, fmt, request):
    """The runtime's own loop generates the same tokens."""
    folder = request.getfixturevalue(made) / name
    samples, (runtime, _) = read_samples(folder / "samples.npz"), loaded(folder, fmt)
    tokens = runtime.generate(samples["inputs"]["source"])
    np.testing.assert_array_equal(tokens, samples["tokens"])
    assert len({tuple(row) for row in tokens}) > 1


@SLOW
@pytest.mark.parametrize("name", GENERATORS)
def test_int8_of_two_parts_is_int8(name, others):
    """Both signatures are int8 and share weights; cache and memory have the same scale in each call."""
    runtime, _ = loaded(others / name, "tflite_int8")
    scale = {(p, t.name): (t.dtype, t.scale) for p, ts in runtime.parts.items() for t in (*ts[0], *ts[1])}
    assert scale["encode", "memory"] == scale["decode", "memory"]
    assert scale["decode", "cache"] == scale["decode", "next_cache"]
    assert {dtype for dtype, _ in scale.values()} == {"int8", "int32"}
    size = {fmt: (others / name / fmt / "model.tflite").stat().st_size for fmt in ("tflite", "tflite_int8")}
    assert size["tflite"] < 1.2 * 4 * zoo.spec(name).params
    assert size["tflite_int8"] < 0.5 * size["tflite"]


def graphs_of(folder, fmt):
    """The ONNX graphs of an artifact."""
    import onnx

    return [onnx.load(path).graph for path in sorted((folder / fmt).glob("*.onnx"))]


@pytest.mark.parametrize("name", marked(ATTENTION))
def test_onnx_of_attention_computes_no_shapes(name, small):
    """No Shape, so no Gather of one; layer normalization is one operator; int8 reaches every product with weights."""
    for fmt in ("onnx", "onnx_int8", "onnx_dynamic"):
        for graph in graphs_of(small, fmt):
            kinds = [node.op_type for node in graph.node]
            assert {"Shape", "Size", "ReduceProd", "If", "Loop", "Range", "Expand"}.isdisjoint(kinds)
            assert {"Softmax", "LayerNormalization"} <= {*kinds}
            # A vector of length 1 is divided by the root of a mean, once.
            lengths = int(zoo.spec(name).task == "embed")
            assert kinds.count("ReduceMean") == kinds.count("Reciprocal") == lengths
            if fmt != "onnx":
                floats = {t.name for t in graph.initializer if t.data_type == 1 and len(t.dims) == 2}
                products = [node for node in graph.node if node.op_type in ("Gemm", "MatMul")]
                assert floats.isdisjoint(name for node in products for name in node.input)


@pytest.mark.parametrize("name", marked(name for name in ATTENTION if zoo.spec(name).vocabulary))
def test_ids_stay_int32(name, small):
    """Ids are int32 in every format, int8 included."""
    for fmt in offered(name):
        given = {tensor.name: tensor.dtype for tensor in loaded(small, fmt)[0].inputs}
        assert given == dict.fromkeys(zoo.spec(name).inputs[:1], "int32")


def test_a_changed_logit_is_seen(tiny):
    """The control: the comparison fails for other logits."""
    import shutil

    folder = tiny / "changed" / SPANNING[0]
    shutil.copytree(tiny / SPANNING[0], folder)
    samples = read_samples(folder / "samples.npz")
    np.savez(folder / "samples.npz", **{**samples, "logits": samples["logits"][::-1]})
    assert off(folder, "tflite") > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", FIRST)
def test_first_variants_are_equal_as_float(name, converted):
    """The first full-size variant of each family is equal in TensorFlow, LiteRT and ONNX Runtime."""
    folder = converted({name: FLOAT}) / name
    assert not list(folder.glob("*.txt"))
    for fmt in FLOAT:
        assert off(folder, fmt) <= formats[fmt].tolerance.relative, fmt


@pytest.mark.slow
def test_a_small_vit_is_exported_in_seconds(converted):
    """At 224 pixels; processor time, which others on the machine change less."""
    seconds = json.loads((converted({VIT: ("onnx", "tflite")}) / VIT / "seconds.json").read_text())
    assert seconds["onnx"] <= 5
    assert seconds["tflite"] <= 7
