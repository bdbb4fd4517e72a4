"""Measure training, export and inference, ours against peers in turns, each in a process of its own.

    python benchmarks/run.py [listing] [building] [training] [inference] [pytorch] [vit]

The last two need torch, torchvision, timm and onnx, in this Python or in the one that PEER_PYTHON names. Prints one
line a measurement and, at the end, the ratios that the project promises. Machines are noisy: read the ratios, which
are of medians over turns.
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
PEER_PYTHON = os.environ.get("PEER_PYTHON", sys.executable)
# Model, pixels, batch, and how many times eager PyTorch we promise.
PYTORCH = (
    ("resnet50", 160, 16, 1.2),
    ("densenet121", 160, 16, 1.2),
    ("inception_v3", 224, 8, 1.2),
    ("mobilenet_v2", 160, 16, 1.2),
    ("vgg16", 160, 8, 2.0),
    ("vit_small_patch16_224", 224, 8, 1.1),
)


def measure(script: str, *arguments: str, python: str = sys.executable) -> dict:
    """Run a benchmark in a process of its own and return what it prints last, a JSON object."""
    command = [python, str(HERE / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def rates(peer: str, model: str, size: int, batch: int) -> tuple[list[float], list[float]]:
    """Return images/s by epoch, ours and the peer's, measured in turns."""
    found: dict[str, list[float]] = {"ours": [], peer: []}
    for turn in range(TURNS):
        for who, epochs in found.items():
            python = PEER_PYTHON if who == "torch" else sys.executable
            one = measure("throughput.py", who, model, str(size), str(batch), python=python)["images_per_second"]
            epochs += one
            print(f"training  {model}  turn {turn + 1}  {who:6} images/s {[round(e, 1) for e in one]}", flush=True)
    return found["ours"], found[peer]


def compare(peer: str, model: str, size: int, batch: int, least: float) -> None:
    """Print how many times faster ours trains, by medians and by the best epochs."""
    ours, theirs = rates(peer, model, size, batch)
    by_median = statistics.median(ours) / statistics.median(theirs)
    print(
        f"training  {model}, {size} px, batch {batch}: ours {statistics.median(ours):.1f} images/s, {peer} "
        f"{statistics.median(theirs):.1f}: {by_median:.2f} times, best epochs {max(ours) / max(theirs):.2f} times "
        f"(at least {least})",
        flush=True,
    )


def training() -> None:
    """ResNet-50: our training in bfloat16 against keras.applications with `fit` as it comes."""
    compare("keras", "resnet50", 160, 16, 3.0)


def pytorch() -> None:
    """Six networks: our training in bfloat16 against eager PyTorch; needs torch, torchvision and timm."""
    for model, size, batch, least in PYTORCH:
        compare("torch", model, size, batch, least)


def building() -> None:
    """How long a network takes to build, in turns with keras.applications: random, and with weights to load."""
    for name, row in measure("building.py").items():
        print(
            f"building  {name:10} ours {row['random']:.3f} s, with weights {row['weights']:.3f} s, Keras "
            f"{row['keras']:.3f} s: {row['random'] / row['keras']:.2f} and {row['weights'] / row['keras']:.2f} times "
            f"(at most {row['most']})"
        )


def inference() -> None:
    """ResNet-50, 224 px, batch 1: latency of each format, and how long the ONNX export takes."""
    found = artifacts("resnet50")
    latency = {name: row["p50"] for name, row in found["latency"].items()}
    print(f"inference  onnx_int8 / onnx: {latency['onnx_int8'] / latency['onnx']:.3f} (at most 0.45)")
    print(f"inference  tflite_int8 / tflite: {latency['tflite_int8'] / latency['tflite']:.3f} (at most 0.40)")
    print(f"export     onnx: {found['export']['onnx']:.2f} s (at most 8)")


def vit() -> None:
    """ViT-small, 224 px, batch 1: latency of each format against timm's own ONNX export; needs torch, timm and onnx."""
    model = "vit_small_patch16_224"
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "timm.onnx")
        seconds = measure("peer_onnx.py", model, path, python=PEER_PYTHON)["seconds"]
        found = artifacts(model, path)
    latency = {name: row["p50"] for name, row in found["latency"].items()}
    for name, most in (("onnx", 1.0), ("tflite", 0.9), ("tflite_dynamic", 0.4)):
        print(f"inference  {name} / timm's onnx: {latency[name] / latency['peer timm.onnx']:.3f} (at most {most})")
    print(f"export     onnx: {found['export']['onnx']:.2f} s (at most 5), timm's {seconds:.2f} s")
    print(f"export     operations that compute shapes: {found['shapes'] or 'none'}")


def artifacts(model: str, *peer: str) -> dict:
    """Measure every format of a network, print it and return it."""
    found = measure("inference.py", model, *peer)
    for name, row in found["latency"].items():
        print(f"inference  {name:15} {row['p50']:7.2f} ms   p95 {row['p95']:7.2f} ms")
    for name, seconds in found["export"].items():
        print(f"export     {name:15} {seconds:7.2f} s")
    return found


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


PARTS = {
    "listing": listing,
    "building": building,
    "training": training,
    "inference": inference,
    "pytorch": pytorch,
    "vit": vit,
}


def main() -> None:
    """Run the parts named on the command line; by default all that need nothing beside the zoo."""
    wanted = sys.argv[1:] or [name for name in PARTS if name not in ("pytorch", "vit")]
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        sys.exit(f"Expected one or more of {', '.join(PARTS)}. Received: {unknown[0]!r}")
    for name in wanted:
        PARTS[name]()


if __name__ == "__main__":
    main()
