"""Measure training, export and inference against peers, in turns, each in a separate process.

    python benchmarks/run.py [listing] [building] [training] [overhead] [data] [latency] [compression] [pytorch]
        [inference] [finetune]

`pytorch` and `inference` need torch, torchvision, timm and onnx, in this Python or in the one of PEER_PYTHON;
`finetune` downloads weights and pictures by pip, apt and npm. `inference`, and
`latency` of one model, leave out missing peers, and save their files in the folder INFERENCE_FILES. Prints one line for
each measurement, and the ratios that the project promises. Machines are noisy: read the ratios, which compare medians
over turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TURNS = 3
# Folder of the runs of the compression benchmark, to use them again; a temporary folder by default.
RUNS = os.environ.get("COMPRESSION_RUNS", "")
# Folder of the files of the inference benchmark, to use them again; a temporary folder by default.
FILES = os.environ.get("INFERENCE_FILES", "")
# Folder of the downloads of the fine-tuning benchmark, to use them again; a temporary folder by default.
REAL = os.environ.get("REAL_DATA", "")
# Largest acceptable ratio to the latency of the best peer.
SLOWER = 1.05
PEER_PYTHON = os.environ.get("PEER_PYTHON", sys.executable)
# Model, pixels, batch size, and the smallest ratio to the speed of eager PyTorch.
PYTORCH = (
    ("resnet50", 160, 16, 1.2),
    ("densenet121", 160, 16, 1.2),
    ("inception_v3", 224, 8, 1.2),
    ("mobilenet_v2", 160, 16, 1.2),
    ("vgg16", 160, 8, 2.0),
    ("vit_small_patch16_224", 224, 8, 1.1),
)


def measure(script: str, *arguments: str, python: str = sys.executable) -> dict:
    """Run a benchmark in a separate process and return the JSON object in its last line."""
    command = [python, str(HERE / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def rates(peer: str, model: str, size: int, batch: int) -> tuple[list[float], list[float]]:
    """Return images/s of each epoch, ours and the peer's, measured in turns."""
    found: dict[str, list[float]] = {"ours": [], peer: []}
    for turn in range(TURNS):
        for who, epochs in found.items():
            python = PEER_PYTHON if who == "torch" else sys.executable
            one = measure("throughput.py", who, model, str(size), str(batch), python=python)["images_per_second"]
            epochs += one
            print(f"training  {model}  turn {turn + 1}  {who:6} images/s {[round(e, 1) for e in one]}", flush=True)
    return found["ours"], found[peer]


def compare(peer: str, model: str, size: int, batch: int, least: float) -> None:
    """Print the ratio of training speeds, by medians and by the best epochs."""
    ours, theirs = rates(peer, model, size, batch)
    by_median = statistics.median(ours) / statistics.median(theirs)
    print(
        f"training  {model}, {size} px, batch {batch}: ours {statistics.median(ours):.1f} images/s, {peer} "
        f"{statistics.median(theirs):.1f}: {by_median:.2f} times, best epochs {max(ours) / max(theirs):.2f} times "
        f"(at least {least})",
        flush=True,
    )


def training() -> None:
    """Compare ResNet-50: training in bfloat16 against keras.applications with a plain `fit`."""
    compare("keras", "resnet50", 160, 16, 3.0)


def pytorch() -> None:
    """Compare six models: training in bfloat16 against eager PyTorch; needs torch, torchvision and timm."""
    for model, size, batch, least in PYTORCH:
        compare("torch", model, size, batch, least)


def building() -> None:
    """Compare the time to build a model with keras.applications: random weights, and weights to load."""
    for name, row in measure("building.py").items():
        print(
            f"building  {name:10} ours {row['random']:.3f} s, with weights {row['weights']:.3f} s, Keras "
            f"{row['keras']:.3f} s: {row['random'] / row['keras']:.2f} and {row['weights'] / row['keras']:.2f} times "
            f"(at most {row['most']})"
        )


def overhead() -> None:
    """Measure the cost of logging, diagnostics and checkpoints over a plain `fit`, for ResNet-50."""
    size = ("resnet50", "160", "16")
    found = measure("overhead.py", "time", *size)
    for kind, cost in found["logging_and_diagnostics"].items():
        together = cost + found["checkpoint"]
        both = f"logging and diagnostics {100 * cost:+.2f}%, with checkpoints {100 * together:+.2f}%"
        print(f"overhead  {kind} time: {both} (at most 3%)")
    print(
        f"overhead  a checkpoint: {found['checkpoint_seconds']:.2f} s, {100 * found['checkpoint']:.2f}% of ten minutes"
    )
    peaks = {who: measure("overhead.py", who, *size) for who in ("ours", "keras")}
    for what in ("fit", "saved"):
        ours, theirs = (peaks[who][what] for who in ("ours", "keras"))
        print(f"overhead  peak memory, {what}: ours {ours:,.0f} MiB (at most Keras' {theirs:,.0f})")


def data() -> None:
    """Compare the input pipeline with Keras' loader and layers; measure how long a small model waits for data."""
    found = measure("data.py", "--waiting")
    rates, work = "images_per_second", "per_processor_second"
    ours = found["pipelines"].pop("ours")
    print(f"data      ours {ours[rates]:.0f} images/s, {ours[work]:.0f} by second of processor time")
    promised = ("at least 2", "a crop of fixed size")
    for (who, theirs), least in zip(found["pipelines"].items(), promised, strict=True):
        print(
            f"data      {who} {theirs[rates]:.0f} images/s: ours {ours[rates] / theirs[rates]:.2f} times ({least}), "
            f"by processor time {ours[work] / theirs[work]:.2f} times"
        )
    print(f"data      a model for digits waits {100 * found['waiting']:.1f}% of its time (at most 10%)")


def inference(*models: str) -> None:
    """Compare every format of six models at batch 1 with the best peer of its runtime and precision."""
    command = [sys.executable, str(HERE / "inference.py"), *models, *(["--folder", FILES] if FILES else [])]
    # Its progress and tables are on standard error.
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed")
    rows = [row for found in json.loads(done.stdout.splitlines()[-1]).values() for row in found["rows"]]
    compared = [row for row in rows if "best" in row]
    slower = [f"{row['model']} {row['format']} {row['ratio'][1]:.2f}" for row in compared if row["ratio"][1] > SLOWER]
    fast = len(compared) - len(slower)
    print(f"inference  {fast} of {len(compared)} take at most {SLOWER} times the best peer", flush=True)
    if slower:
        print(f"inference  slower: {', '.join(slower)}", flush=True)


def latency() -> None:
    """Compare the formats of ResNet-50 alone."""
    inference("resnet50")


def compression() -> None:
    """Measure digits_resnet with three seeds after each compression pipeline, and the cost of masks."""
    found = measure("compressing.py", *([RUNS] if RUNS else []))
    for pipeline, seeds in found["pipelines"].items():
        rows = list(seeds.values())
        before, after = (statistics.mean(row[key] for row in rows) for key in ("before", "after"))
        each = ", ".join(f"{row['after']:.4f}" for row in rows)
        print(f"compress  {pipeline}: accuracy {each}, mean {after:.4f}, {100 * (after - before):+.2f} points")
        ratios = {f"gzip {name}": [row["gzip"][name] for row in rows] for name in rows[0]["gzip"]}
        ratios["multiply-adds"] = [row["multiply_adds"] for row in rows]
        for name in rows[0].get("latency", ()):
            ratios[f"latency {name}"] = [row["latency"][name] for row in rows]
        for name, values in ratios.items():
            print(f"compress    {name}: {statistics.mean(values):.3f} of the uncompressed model")
        for key in ("zeros", "distinct"):
            print(f"compress    {key}: {rows[0][key]}, guaranteed zeros {rows[0]['guaranteed_zeros']}")
    print(f"compress  a step of training with masks: {100 * found['masks']:+.1f}% (at most 10%)")


def finetune() -> None:
    """Compare fine-tuning on real pictures with a plain Keras script, over five seeds, and train real digits."""
    with tempfile.TemporaryDirectory() as temporary:
        found = measure("finetune.py", REAL or temporary)
    mean = {part: {key: statistics.mean(row[key] for row in rows) for key in rows[0]} for part, rows in found.items()}
    for part, values in mean.items():
        print(f"finetune  {part:<13} test accuracy {values['test']:.4f}, {values['seconds']:.0f} s")
    ahead = 100 * (mean["finetune"]["test"] - mean["keras"]["test"])
    print(f"finetune  the recipe is {ahead:+.1f} points from the Keras script (at least 0)")
    print(f"finetune  a linear probe takes {mean['linear_probe']['seconds']:.0f} s (at most 120)")
    digits = mean["mnist"]
    print(f"finetune  digits {digits['test']:.4f} (at least 0.990) in {digits['seconds']:.0f} s (at most 90)")
    for name in ("tflite_int8", "onnx_int8"):
        print(f"finetune  digits as {name} {100 * (digits[name] - digits['test']):+.2f} points (at least -0.1)")


def listing() -> None:
    """Time `zoo list` and `zoo show` in new processes."""
    import time

    for command in (["list"], ["show", "resnet50"]):
        times = []
        for _ in range(10):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "zoo", *command], capture_output=True, check=True, cwd=HERE.parent)
            times.append(time.perf_counter() - start)
        print(f"listing   zoo {' '.join(command):14} {statistics.median(times):.3f} s (at most 0.3)")


PARTS = {
    "listing": listing,
    "building": building,
    "training": training,
    "overhead": overhead,
    "data": data,
    "latency": latency,
    "compression": compression,
    "pytorch": pytorch,
    "inference": inference,
    "finetune": finetune,
}


def main() -> None:
    """Run the named parts; by default all that need no other packages."""
    wanted = sys.argv[1:] or [name for name in PARTS if name not in ("pytorch", "inference", "finetune")]
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        sys.exit(f"Expected one or more of {', '.join(PARTS)}. Received: {unknown[0]!r}")
    for name in wanted:
        PARTS[name]()


if __name__ == "__main__":
    main()
