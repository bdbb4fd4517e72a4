"""Measure training, export and inference, ours against peers in turns, each in a process of its own.

    python benchmarks/run.py [listing] [training] [inference]

Prints one line a measurement and, at the end, the ratios that the project promises. Machines are noisy: read the
ratios, which are of medians over turns.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TURNS = 3


def measure(script: str, *arguments: str) -> dict:
    """Run a benchmark in a process of its own and return what it prints last, a JSON object."""
    command = [sys.executable, str(HERE / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def training() -> None:
    """ResNet-50, 160 px, batch 16: our training in bfloat16 against keras.applications with `fit` as it comes."""
    rates: dict[str, list[float]] = {"ours": [], "keras": []}
    for turn in range(TURNS):
        for who, found in rates.items():
            epochs = measure("resnet50_training.py", who)["images_per_second"]
            found += epochs
            print(f"training  turn {turn + 1}  {who:6}  images/s by epoch {[round(e, 1) for e in epochs]}", flush=True)
    ours, keras = (statistics.median(found) for found in rates.values())
    best, best_keras = (max(found) for found in rates.values())
    print(f"training  ours {ours:.1f} images/s, Keras as it comes {keras:.1f}: {ours / keras:.2f} times (at least 3.0)")
    print(f"training  best epochs: {best:.1f} against {best_keras:.1f}: {best / best_keras:.2f} times")


def inference() -> None:
    """ResNet-50, 224 px, batch 1: latency of each format, and how long the ONNX export takes."""
    found = measure("resnet50_inference.py")
    for name, row in found["latency"].items():
        print(f"inference  {name:15} {row['p50']:7.2f} ms   p95 {row['p95']:7.2f} ms")
    for name, seconds in found["export"].items():
        print(f"export     {name:15} {seconds:7.2f} s")
    latency = {name: row["p50"] for name, row in found["latency"].items()}
    print(f"inference  onnx_int8 / onnx: {latency['onnx_int8'] / latency['onnx']:.3f} (at most 0.45)")
    print(f"inference  tflite_int8 / tflite: {latency['tflite_int8'] / latency['tflite']:.3f} (at most 0.40)")
    print(f"export     onnx: {found['export']['onnx']:.2f} s (at most 8)")


def listing() -> None:
    """`zoo list` and `zoo show` from a cold start of Python."""
    import time

    for command in (["list"], ["show", "resnet50"]):
        times = []
        for _ in range(10):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "zoo", *command], capture_output=True, check=True, cwd=HERE.parent)
            times.append(time.perf_counter() - start)
        print(f"listing   zoo {' '.join(command):14} {statistics.median(times):.3f} s (at most 0.3)")


PARTS = {"listing": listing, "training": training, "inference": inference}


def main() -> None:
    """Run the parts named on the command line, all of them by default."""
    wanted = sys.argv[1:] or list(PARTS)
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        sys.exit(f"Expected one or more of {', '.join(PARTS)}. Received: {unknown[0]!r}")
    for name in wanted:
        PARTS[name]()


if __name__ == "__main__":
    main()
