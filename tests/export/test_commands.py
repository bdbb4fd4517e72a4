"""The arguments of `zoo export`, in any order."""

from __future__ import annotations

import pytest

from export.commands import _split_positional


@pytest.mark.parametrize(
    ("positional", "source", "formats"),
    [
        (["RUN"], "RUN", []),
        (["RUN", "onnx"], "RUN", ["onnx"]),
        (["onnx", "RUN"], "RUN", ["onnx"]),
        (["onnx:batch=1", "keras", "RUN"], "RUN", ["onnx:batch=1", "keras"]),
        # The first one is the run if all of them are names of formats.
        (["onnx", "keras"], "onnx", ["keras"]),
        (["RUN", "onxn"], "RUN", ["onxn"]),
    ],
)
def test_formats_before_and_after_the_run(positional, source, formats):
    assert _split_positional(positional) == (source, formats)


@pytest.mark.parametrize(
    "arguments",
    [
        ("RUN", "--format", "tflite", "onnx", "--max-drop", "1"),
        ("--format", "tflite", "onnx", "RUN", "--max-drop", "1"),
        ("--max-drop", "1", "--format", "tflite", "onnx", "--json", "RUN"),
    ],
)
def test_options_before_and_after_the_run(arguments, tmp_path, zoo_command):
    """The run is found in every order: the error names it."""
    run = tmp_path / "nowhere"
    code, out, err = zoo_command("export", *(run if argument == "RUN" else argument for argument in arguments))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert str(run) in err


def test_a_misspelled_format_is_named(tmp_path, zoo_command):
    code, _, err = zoo_command("export", tmp_path, "--format", "onnx", "tflit")
    assert code == 2
    assert "Did you mean 'tflite'" in err
