"""Equalized channels are alike in size, and the network computes what it did."""

from __future__ import annotations

import numpy as np
import pytest

from export.backends.litert import file as litert_file
from export.compression.equalization import Links


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


def test_only_what_one_layer_reads(content):
    """The first convolution of each block, whose ReLU only the second reads; nothing that goes into a sum."""
    names = list(Links(content).found)
    assert [sum(f"stage{i}_block1_conv1" in name for name in names) for i in (1, 2, 3)] == [1, 1, 1]
    assert not any("stem" in name or "_add" in name for name in names)


def test_the_function_stays(content):
    """Channels made 50 times larger are seen, equalizing brings them back, and the logits stay."""
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
    # The control: a kernel that only its maker scales is another function.
    assert abs(run(hardened(content, name, whole=False), pixels) - expected).max() > 0.1


def test_constants_that_are_kept_once(content):
    """Of two layers that share the storage of a constant only the one that is equalized changes."""
    links = Links(content)
    name, other = (name for name in links.found if "stage1_block1_conv1" in name or "stage3_block1_conv1" in name)
    mine, theirs = (int(links.found[n].maker.inputs[2]) for n in (name, other))
    links._store(mine, np.arange(1, 9))
    links._graph.tensors[theirs].buffer = links._graph.tensors[mine].buffer
    links._graph.tensors[theirs].shape = links._graph.tensors[mine].shape
    assert links.equalize([name])[name] > 1
    np.testing.assert_array_equal(links._array(theirs), np.arange(1, 9))
    assert not np.allclose(links._array(mine), np.arange(1, 9))


def hardened(content, name, whole=True):
    """The file with every fourth channel of a layer 50 times larger, and, if whole, read as much smaller."""
    links = Links(content)
    link = links.found[name]
    made, bias, taken = (int(i) for i in (link.maker.inputs[1], link.maker.inputs[2], link.reader.inputs[1]))
    kernel = links._array(made)
    scale = np.where(np.arange(len(kernel)) % 4 == 0, 50, 1).astype("float32")
    links._store(made, kernel * scale[:, None, None, None])
    links._store(bias, links._array(bias) * scale)
    if whole:
        links._store(taken, links._array(taken) / scale)
    return links.content()


def test_files_of_several_parts_are_left(content):
    """A network that writes sequences has two graphs, and none of its layers is touched."""
    model = litert_file.read(content)
    model.subgraphs = [*model.subgraphs, model.subgraphs[0]]
    assert Links(bytes(litert_file.pack(model))).found == {}
