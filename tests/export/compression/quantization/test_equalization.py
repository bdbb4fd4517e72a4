"""Cross-layer equalization brings channels to the same size and preserves the outputs."""

from __future__ import annotations

import numpy as np
import pytest

from export.backends.litert import file as litert_file
from export.compression.quantization.equalization import Links


@pytest.fixture(scope="module")
def content(artifacts):
    """A float32 .tflite of the tiny ResNet."""
    return artifacts["tflite"].path.read_bytes()


def run(content, pixels):
    """The logits of a file."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    found = []
    for image in pixels:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    return np.array(found)


def test_equalizable_layers(content):
    """The first convolution of each block, with the second as its only reader; no input of a sum."""
    names = list(Links(content).found)
    assert [sum(f"stage{i}_block1_conv1" in name for name in names) for i in (1, 2, 3)] == [1, 1, 1]
    assert not any("stem" in name or "_add" in name for name in names)


def test_outputs_are_preserved(content):
    """Equalization detects and removes a factor of 50 between channels and preserves the logits."""
    pixels = np.random.default_rng(0).uniform(0, 255, (8, 8, 8, 1)).astype("float32")
    links = Links(content)
    name = next(name for name in links.found if "stage2_block1_conv1" in name)
    (even,) = links.equalize([name]).values()
    hard = Links(hardened(links.content(), name))
    (spread,) = hard.equalize([name]).values()
    assert even < 30 < spread
    assert Links(hard.content()).equalize([name])[name] == pytest.approx(1, rel=1e-3)
    expected = run(content, pixels)
    np.testing.assert_allclose(run(hard.content(), pixels), expected, rtol=1e-3, atol=1e-4)
    # The control: scaling only the producer changes the outputs.
    assert abs(run(hardened(content, name, both=False), pixels) - expected).max() > 0.1


def test_shared_constants(content):
    """Of two layers that share the buffer of a constant, only the equalized one changes."""
    links = Links(content)
    name, other = (name for name in links.found if "stage1_block1_conv1" in name or "stage3_block1_conv1" in name)
    mine, theirs = (int(links.found[n].producer.inputs[2]) for n in (name, other))
    links._store(mine, np.arange(1, 9))
    links._graph.tensors[theirs].buffer = links._graph.tensors[mine].buffer
    links._graph.tensors[theirs].shape = links._graph.tensors[mine].shape
    assert links.equalize([name])[name] > 1
    np.testing.assert_array_equal(links._array(theirs), np.arange(1, 9))
    assert not np.allclose(links._array(mine), np.arange(1, 9))


def hardened(content, name, both=True):
    """The file with every fourth channel of a layer 50 times larger, and, if both, its reader that much smaller."""
    links = Links(content)
    link = links.found[name]
    produced, bias, read_weights = (
        int(i) for i in (link.producer.inputs[1], link.producer.inputs[2], link.reader.inputs[1])
    )
    kernel = links._array(produced)
    scale = np.where(np.arange(len(kernel)) % 4 == 0, 50, 1).astype("float32")
    links._store(produced, kernel * scale[:, None, None, None])
    links._store(bias, links._array(bias) * scale)
    if both:
        links._store(read_weights, links._array(read_weights) / scale)
    return links.content()


def test_files_with_several_graphs_are_not_equalized(content):
    """A sequence-to-sequence model has two graphs; no layer is equalized."""
    model = litert_file.read(content)
    model.subgraphs = [*model.subgraphs, model.subgraphs[0]]
    assert Links(bytes(litert_file.pack(model))).found == {}
