"""Open mutated tables and text files as training does: one line for what cannot be read, never a traceback or a hang.

    python benchmarks/mutated.py [COUNT] [SEED]

Each file is a good one with some bytes, lines or cells changed. Prints how many train, how many are refused, and each
file that fails otherwise; exits with 1 if there is one.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import zoo
from training import DataConfig, ModelConfig, Recipe
from training.data.pipeline.opening import open_pipeline, training_statistics
from training.data.readers.table_files import read_rows
from training.data.readers.tables import reading_of
from training.data.summary import summary_lines
from zoo.common.errors import ZooError

# Rows that a line states as left out, other than those that are no rows of the table.
LEFT_OUT = re.compile(r"^Left out: ([\d,]+) (?:rows without a target|texts of )")
# Seconds from which on opening a file of a few kilobytes is a hang.
SLOW = 20.0
STRANGE = (
    *(
        "",
        "?",
        "-",
        "NA",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "1e-400",
        "0x1F",
        "1_000",
        "12,5",
        "1.234,5",
        "$5",
        "5 kg",
        "12%",
    ),
    *(
        "2024-02-30",
        "31.12.2024",
        "1/2/24",
        "24:61",
        "true",
        "ja",
        "\u00e9",
        "\ufeff",
        "\u202e",
        "\U0001f600",
        "\0",
        '"',
        '""',
    ),
    *(
        "'",
        ";",
        "\t",
        "|",
        "\n",
        "\r",
        "a" * 5000,
        "9" * 400,
        "-0",
        "00123",
        "1 234",
        "(5)",
        "=1+1",
        "#REF!",
        "None",
        " ",
    ),
)


def table(draw: np.random.Generator) -> bytes:
    """Return a table of 80 rows with numbers, dates, categories and a target."""
    rows = [["id", "size", "day", "color", "text", "label"]]
    for i in range(80):
        day = f"2024-{draw.integers(1, 13):02d}-{draw.integers(1, 29):02d}"
        color, label = ("red", "green", "blue")[draw.integers(3)], ("yes", "no")[i % 2]
        rows.append([str(i), f"{draw.normal():.3f}", day, color, f"some words {i % 7}", label])
    delimiter = ",;\t|"[draw.integers(4)]
    return "\n".join(delimiter.join(row) for row in rows).encode()


def texts(draw: np.random.Generator) -> bytes:
    """Return a table of 60 texts with a class."""
    words = ("good fine great nice", "bad awful poor sad")
    rows = [f"{' '.join(draw.permutation(words[i % 2].split()))},{('pos', 'neg')[i % 2]}" for i in range(60)]
    return "\n".join(["text,label", *rows]).encode()


def change_bytes(content: bytes, draw: np.random.Generator) -> bytes:
    """Replace some bytes by random ones."""
    found = bytearray(content)
    for place in draw.integers(0, len(found), draw.integers(1, 30)):
        found[place] = draw.integers(256)
    return bytes(found)


def cut(content: bytes, draw: np.random.Generator) -> bytes:
    """Leave out a part, or all behind a place."""
    low, high = sorted(draw.integers(0, len(content), 2).tolist())
    return content[:low] + (content[high:] if draw.random() < 0.5 else b"")


def change_cells(content: bytes, draw: np.random.Generator) -> bytes:
    """Replace up to a third of the cells by strange ones."""
    delimiter = next(sign for sign in (b"\t", b"|", b";", b",") if sign in content)
    rows = [line.split(delimiter) for line in content.split(b"\n")]
    for _ in range(draw.integers(1, 1 + sum(map(len, rows)) // 3)):
        row = rows[draw.integers(len(rows))]
        row[draw.integers(len(row))] = str(draw.choice(np.array(STRANGE, object))).encode("utf-8", "replace")
    return b"\n".join(delimiter.join(row) for row in rows)


def change_column(content: bytes, draw: np.random.Generator) -> bytes:
    """Replace a whole column by one or few strange cells."""
    delimiter = next(sign for sign in (b"\t", b"|", b";", b",") if sign in content)
    rows = [line.split(delimiter) for line in content.split(b"\n")]
    place, some = draw.integers(len(rows[0])), draw.choice(np.array(STRANGE, object), draw.integers(1, 4))
    for row in rows[1:]:
        row[place : place + 1] = [str(draw.choice(some)).encode("utf-8", "replace")]
    return b"\n".join(delimiter.join(row) for row in rows)


def change_lines(content: bytes, draw: np.random.Generator) -> bytes:
    """Leave out, repeat or move lines, also that of the names."""
    lines = content.split(b"\n")
    chosen = draw.integers(0, len(lines), draw.integers(0, len(lines)))
    return b"\n".join(lines[i] for i in (chosen if draw.random() < 0.5 else np.sort(chosen)))


def recode(content: bytes, draw: np.random.Generator) -> bytes:
    """Write the file in another encoding, with an umlaut."""
    name = draw.choice(["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252", "utf-8-sig", "cp037"])
    return content.decode().replace("red", "röt").replace("good", "größe").encode(name, "replace")


MUTATIONS = (change_bytes, cut, change_cells, change_column, change_lines, recode)


def opened(name: str, path: Path) -> None:
    """Open a file as training does, and take its first batch; all rows are examples, or left out with a line."""
    model = "mlp_tiny" if name == "table" else "encoder_tiny"
    length = () if name == "table" else (12,)
    data = DataConfig(name, path=str(path), batch_size=8, length=length, skip_bad=True)
    recipe = Recipe("mutated", ModelConfig(model), data)
    pipeline = open_pipeline(recipe, zoo.spec(model))
    summary = training_statistics(pipeline)["summary"]
    list(summary_lines(summary))
    x, _ = next(iter(pipeline.train(0)))
    if not np.isfinite(np.asarray(x, "float64")).all():
        raise AssertionError("the first batch is not finite")
    rows = len(read_rows(str(path), reading_of(data, texts=name != "table")))
    said = sum(int(count.replace(",", "")) for note in summary["notes"] for count in LEFT_OUT.findall(note))
    if said != rows - sum(summary["examples"].values()):
        raise AssertionError(f"{rows} rows, {summary['examples']} examples, {said} stated as left out")


def outcome(name: str, path: Path) -> str:
    """Return "trains", "refused", or what went wrong."""
    start = time.monotonic()
    try:
        opened(name, path)
        found = "trains"
    except ZooError as error:
        found = "refused" if "\n" not in str(error) and "Received" in str(error) else f"not one line: {error}"
    except Exception:
        found = traceback.format_exc()
    return found if time.monotonic() - start < SLOW else f"took {time.monotonic() - start:.0f} s ({found})"


def mutated(count: int, seed: int) -> Counter[str]:
    """Return the number of each outcome of some mutated files, and print those that are bugs."""
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for name, make in (("table", table), ("text_table", texts)):
            # TensorFlow's first use takes long.
            path = Path(folder) / "file.csv"
            path.write_bytes(make(np.random.default_rng(seed)))
            opened(name, path)
        for number in range(count):
            draw = np.random.default_rng([seed, number])
            name, make = ("table", table) if number % 3 else ("text_table", texts)
            content = make(draw)
            for _ in range(draw.integers(1, 3)):
                content = MUTATIONS[draw.integers(len(MUTATIONS))](content, draw) if is_text(content) else content
            path = Path(folder) / "file.csv"
            path.write_bytes(content)
            result = outcome(name, path)
            found[result if result in ("trains", "refused") else "fails"] += 1
            if result not in ("trains", "refused"):
                print(f"seed {seed}, file {number} ({name}): {result}", flush=True)
    return found


def is_text(content: bytes) -> bool:
    """Return whether a mutation of texts can be applied."""
    try:
        return any(sign in content.decode() for sign in "\t|;,") and bool(content)
    except UnicodeDecodeError:
        return False


def main() -> int:
    """Print the numbers of outcomes; return 1 for a failure."""
    count, seed = (int(value) for value in (sys.argv[1:] + ["500", "1"][len(sys.argv) - 1 :])[:2])
    start = time.monotonic()
    found = mutated(count, seed)
    print(f"{dict(found)} of {count} files in {time.monotonic() - start:.0f} s")
    return int(found["fails"] > 0)


if __name__ == "__main__":
    sys.exit(main())
