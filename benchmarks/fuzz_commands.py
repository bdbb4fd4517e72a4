"""Malformed command lines through the real commands, in one process: `python benchmarks/fuzz_commands.py --count 3000`.

Every line must end with code 0 or 2 within ten seconds, an error with one line on standard error, and nothing may be
written outside the working folder. A line that is accepted stops where it would import a framework, start a process or
use the network: an audit hook raises there. Nothing is replaced by a stand-in.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from export.core.format import formats
from training.recipe.keys import all_keys
from training.recipe.recipe import Recipe, recipes
from zoo import __main__ as command_line
from zoo.specs.registry import models

FRAMEWORKS = {"tensorflow", "keras", "jax", "torch", "onnxruntime", "openvino", "tf_keras", "ai_edge_litert"}
EFFECTS = {"subprocess.Popen", "os.system", "os.posix_spawn", "os.fork", "socket.connect", "socket.getaddrinfo"}
SECONDS = 10
# Values that options seldom expect.
HOSTILE = (
    "", " ", "-1", "0", "1", "1.5", "1e400", "-1e400", "nan", "inf", "null", "true", "[]", "{}", "[[]]", '{"a":1}',
    "\0", "\x1b[31m", "ä€😀", "\ud800", "../..", "/", ".", "~", "/dev/null", "/nowhere/at/all", "a=b", "=", "a=", "=b",
    "--",
    "-", "%s%n", "{}{0}", "a" * 5000, "9" * 30, "9" * 5000, "[" * 3000, "{" + '"a":{' * 2000, "1..2", "log:0..1", "a|b",
    "hf://", "hf://a/b", "hf://a/b@c", "imagenet", "random", "float32", "'", '"', "\n", "a\nb", "\\", "*", "[!", "2:4",
    "1x4", "prune:", "prune:0.8|", "|", "||", "tflite:", "tflite:batch", "tflite:batch=", "tflite:batch=x", ":::",
    ",,,",
)  # fmt: skip


# Lines that are right, of which one part is replaced at a time.
RIGHT = (
    "list resnet* --family resnet --tag small --exclude resnet50 --json", "show resnet18 --plot plot.png --json",
    "fetch resnet18 --weights imagenet --cache-dir cache", "recipes digits* --json", "formats --json", "targets --json",
    "new-recipe mine --from digits_mlp --folder new --python", "compressions --json",
    "lr-find digits_mlp --set epochs=1 --low 1e-6 --high 1.0 --steps 20 --out plot.png",
    "train digits_mlp --set epochs=1 --set data.batch_size=8 --run here --quiet", "train --resume run --set epochs=3",
    "train toml.toml --set model.options.widths=[8] --set optimizer.learning_rate=0.1 --json",
    "launch --workers 2 digits_mlp --set epochs=1 --run here --retries 1", "launch --resume run --workers 2",
    "tune digits_mlp --space optimizer.learning_rate=log:1e-4..1e-1 --space data.batch_size=8|16 --trials 2 --seed 3",
    "tune digits_mlp --space regularize.dropout=0.1..0.5 --study here --pruner none --set epochs=1",
    "diagnose run --json", "evaluate run --split test --changed-data", "verify artifact --json", "report run artifact",
    "export run --format onnx tflite_int8:batch=2,input=uint8 --compress prune:0.8|qat --max-drop 1 --auto",
    "export resnet18 --weights random --classes 3 --set width=8 --format onnx --out here --preprocessing imagenet",
    "export resnet18 --weights noise.safetensors --calibration folder --for android --set input_shape=[32,32,3]",
    "push run hf://user/name", "inspect noise.onnx --json", "inspect zip.keras", "inspect folder",
    "inspect empty.tflite",
    "pick run --max-drop 1 --max-mb 3 --max-ms 3 --max-memory 100 --threads 2 --gzip --json",
    "demo --recipe digits_mlp --set epochs=1 --run here",
)  # fmt: skip


class Accepted(BaseException):
    """A line was accepted: it would import a framework, start a process or use the network."""


class Hangs(BaseException):
    """A line takes too long."""


def lines(seed: int, folder: Path) -> Iterator[list[str]]:
    """Yield malformed command lines without end; the same ones for a seed.

    Args:
        seed: of the random numbers.
        folder: has files of `write_files`.
    """
    draw = random.Random(seed)
    commands = {name: command_line.cli.get_command(None, name) for name in command_line.COMMANDS}
    files = [str(path) for path in sorted(folder.iterdir())]
    while True:
        if draw.random() < 0.6:
            yield _nearly_right(draw, files)
            continue
        name = draw.choice(list(commands))
        line = [draw.choice([name] * 20 + [name[:-1], name.upper(), ""])]
        parameters = list(commands[name].params)
        for parameter in draw.sample(parameters, draw.randint(0, min(4, len(parameters)))):
            line += _parameter(parameter, draw, files)
        if draw.random() < 0.2:
            draw.shuffle(line)
        if draw.random() < 0.15:
            line.insert(draw.randint(0, len(line)), draw.choice(["--unknown", "-x", "--json=1", *HOSTILE]))
        yield line


def _nearly_right(draw: random.Random, files: list[str]) -> list[str]:
    """Return a line that is right but for one part, or for what follows the equals sign in it."""
    line = draw.choice(RIGHT).split(" ")
    place = draw.randrange(1, len(line))
    other = draw.choice([draw.choice(HOSTILE)] * 2 + [draw.choice(files), _changed(line[place], draw)])
    before, sign, _ = line[place].rpartition("=")
    line[place] = f"{before}{sign}{other}" if sign and draw.random() < 0.8 else other
    return line


def _parameter(parameter: click.Parameter, draw: random.Random, files: list[str]) -> list[str]:
    """Return an argument, or an option with zero to two values."""
    value = _value(parameter, draw, files)
    if isinstance(parameter, click.Argument):
        return [value for _ in range(draw.choice([0, 1, 1, 1, 2]))]
    option = draw.choice(parameter.opts)
    if getattr(parameter, "is_flag", False):
        return [option]
    return draw.choice([[option, value]] * 8 + [[f"{option}={value}"], [option], [option, value, option, value]])


def _value(parameter: click.Parameter, draw: random.Random, files: list[str]) -> str:
    """Return a value: one that could be right, with a change, or a hostile one."""
    kind, hostile = draw.random(), draw.choice(HOSTILE)
    if kind < 0.3:
        return hostile
    if kind < 0.45:
        return draw.choice(files)
    if parameter.name in ("overrides", "spaces", "options"):
        return f"{_changed(draw.choice(list(all_keys(Recipe))), draw)}={hostile}"
    names = {"chosen": formats.names, "recipe": recipes.names}.get(parameter.name, models.names)()
    name = draw.choice(list(names))
    if parameter.name == "chosen":
        name += draw.choice(["", ":batch=", f":batch={hostile}", f":{hostile}", f":{hostile}={hostile}", ":input=int8"])
    return _changed(name, draw)


def _changed(text: str, draw: random.Random) -> str:
    """Return a text as it is, or with a letter less, more or another."""
    place = draw.randint(0, len(text))
    more = draw.choice(["", ".", "=", ":", "/", "\0", "ä", "x"])
    return draw.choice([text, text, text[:place] + more + text[place:], text[:place] + more + text[place + 1 :]])


def write_files(folder: Path) -> None:
    """Write files that look like recipes, tables, images, models and runs, and are none."""
    contents: dict[str, Any] = {
        "empty": b"",
        "noise": random.Random(0).randbytes(2000),
        "bom": b"\xef\xbb\xbf[data]",
        "utf16": "a=1".encode("utf-16"),
        "deep": b"[" * 5000,
        "zip": b"PK\x03\x04" + bytes(50),
        "toml": b'name = "x"\n[data]\nname = 3\n',
        "long": b"a" * 9000,
    }
    for suffix in (".toml", ".csv", ".json", ".keras", ".onnx", ".tflite", ".npy", ".safetensors", ".h5", ".xml", ""):
        for name, content in contents.items():
            (folder / f"{name}{suffix}").write_bytes(content)
    for name in ("run", "artifact", "folder"):
        (folder / name).mkdir()
    for name, text in {"recipe.json": "{}", "done.json": "[]", "manifest.json": '{"version": 1}'}.items():
        (folder / "run" / name).write_text(text)
        (folder / "artifact" / name).write_text(text)


def watch(folder: Path, line: list[str]) -> None:
    """Stop accepted lines, and fail lines that write outside a folder; lasts until the process ends.

    Args:
        folder: the working folder.
        line: the current line, in place; a file in another folder that the line itself names is stopped.
    """

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "import" and arguments[0].partition(".")[0] in FRAMEWORKS:
            raise Accepted(arguments[0])
        if event in EFFECTS:
            raise Accepted(event)
        if event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            path = os.path.realpath(arguments[0])
            if path.startswith((str(folder), "/dev/", tempfile.gettempdir())):
                return
            named = [os.path.realpath(part) for part in line if "\0" not in part]
            if os.path.dirname(path) in {*named, *map(os.path.dirname, named)}:
                raise Accepted(path)
            raise AssertionError(f"writes {path}")

    sys.addaudithook(hook)


def run(line: list[str], command: Callable[[list[str]], None] = command_line.main) -> str:
    """Run a line of a command; return "accepted", "help", "refused", or in capitals what is wrong with it."""
    # As Python opens them: only standard error takes lone surrogates, as which bytes arrive that are no UTF-8.
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True)
    signal.signal(signal.SIGALRM, _raise_hangs)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            command(line)
    except SystemExit as error:
        return _outcome(error.code, err.buffer.getvalue().decode())
    except Accepted:
        return "accepted"
    except Hangs:
        return f"HANGS over {SECONDS} s"
    except BaseException:
        return "TRACEBACK " + traceback.format_exc()[-1500:]
    finally:
        signal.alarm(0)
    return "RETURNED without a code"


def _raise_hangs(*_: Any) -> None:
    raise Hangs


def _outcome(code: Any, text: str) -> str:
    if code == 0:
        return "help"
    # A line that ends with an ellipsis says what begins, but for messages whose value is shortened.
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("zoo:") or not line.endswith("…")]
    if code != 2:
        return f"CODE {code}: {text[:300]}"
    if "Traceback" in text or (len(errors) > 1 and not errors[0].startswith("Usage")):
        return f"LINES {len(errors)}: {text[:600]}"
    return "refused" if errors else "SILENT"


def fuzz(count: int, seed: int, report: Callable[[list[str], str], None]) -> collections.Counter[str]:
    """Run lines in a new folder; return how many ended in which way.

    Args:
        count: number of lines.
        seed: of the random numbers.
        report: receives each line that is not as it should be, and why.
    """
    found: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(os.path.realpath(name))
        os.chdir(folder)
        write_files(folder)
        generated = lines(seed, folder)
        sample = [next(generated) for _ in range(count)]
        current: list[str] = []
        watch(folder, current)
        for line in sample:
            current[:] = line
            result = run(line)
            kind = result.partition(" ")[0]
            found[kind] += 1
            if kind.isupper():
                report(line, result)
        os.chdir("/")
    return found


def main() -> None:
    """Run the lines that the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begin, failures = time.monotonic(), []

    def report(line: list[str], result: str) -> None:
        failures.append(line)
        shown = [part[:80] for part in line]
        print(f"{shown}\n  {result}", file=sys.stderr)

    found = fuzz(options.count, options.seed, report)
    print(json.dumps({"lines": options.count, "seconds": round(time.monotonic() - begin, 1), **found}))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
