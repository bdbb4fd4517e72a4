"""Compare latencies at batch 1 with peers in the same runtime and precision, in turns.

    python benchmarks/inference.py [MODEL…] [--folder DIR] [--threads N] [--again] [--profile]

The peers are exports of our model with its preprocessing by Keras' own `model.export` (ONNX, LiteRT, SavedModel,
OpenVINO; LiteRT in 8 bits by the converter's own quantization); timm's ONNX as PyTorch exports it, without
preprocessing; and this ONNX file after ONNX Runtime's quantizers with their defaults, OpenVINO's conversion and NNCF.
timm's need torch, timm and onnx in this Python or in the one of PEER_PYTHON; OpenVINO's need openvino and nncf. Missing
peers are printed and left out.

Weights are random, which does not change latencies; all models get the same values from 0 to 255. Files are made in
child processes and saved in DIR, to use them again; --again makes them anew. Each runtime has two separate processes,
and its files take turns in them. Prints a table on standard error, and JSON as the last line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PEER_PYTHON = os.environ.get("PEER_PYTHON", sys.executable)
# Name of this zoo, and of timm.
MODELS = {
    "resnet50": "resnet50",
    "vgg16": "vgg16",
    "inception_v3": "inception_v3",
    "densenet121": "densenet121",
    "mobilenet_v2": "mobilenetv2_100",
    "vit_small_patch16_224": "vit_small_patch16_224",
}
# By runtime and precision: the format, and the files of peers.
PAIRS = {
    "LiteRT": {
        "float32": ("tflite", ["keras.tflite"]),
        "int8": ("tflite_int8", ["keras_int8.tflite"]),
        "dynamic": ("tflite_dynamic", ["keras_dynamic.tflite"]),
    },
    "ONNX Runtime": {
        "float32": ("onnx", ["keras.onnx", "timm.onnx"]),
        "int8": ("onnx_int8", ["timm_int8.onnx"]),
        "dynamic": ("onnx_dynamic", ["timm_dynamic.onnx"]),
    },
    "OpenVINO": {
        "float32": ("openvino", ["keras_openvino.xml", "timm_openvino.xml"]),
        "int8": ("openvino_int8", ["timm_nncf.xml"]),
    },
    "TensorFlow": {"float32": ("saved_model", ["keras_saved_model"])},
}
# Dynamic quantization is for transformers: convolutions stay as they are.
DYNAMIC = ("vit_", "deit_")
PROCESSES = 2
MOST, INT8_FRACTION = 1.05, 6.5 / 18.5
MOST_SECONDS = {"resnet50": 5, "vgg16": 8}


def log(text: str) -> None:
    """Print on standard error."""
    print(text, file=sys.stderr, flush=True)


def child(script: str, *arguments: object, python: str = sys.executable) -> dict[str, Any]:
    """Run a script in a separate process; returns the JSON in its last line, or {"error": its last line}."""
    command = [python, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent, env=environment())
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return {"error": (lines or [f"ended with code {done.returncode}"])[-1][:300]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def environment() -> dict[str, str]:
    """Return the environment of a child, with the same packages."""
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(HERE.parent)}


def make(model: str, folder: Path, again: bool) -> dict[str, Any]:
    """Make missing files; returns seconds by maker and file, or the reason of a failure."""
    notes = folder / "made.json"
    made = json.loads(notes.read_text()) if notes.is_file() and not again else {}
    folder.mkdir(parents=True, exist_ok=True)
    jobs = {
        "ours": ("inference_make.py", "ours", model, folder),
        "keras": ("inference_make.py", "keras", model, folder),
        "timm": ("peer_onnx.py", MODELS.get(model, model), folder / "timm.onnx", model_size(model)),
        "openvino": ("inference_make.py", "openvino", model, folder),
        "quantized": ("inference_make.py", "quantized", model, folder),
    }
    for maker, job in jobs.items():
        if maker not in made or "error" in made[maker]:
            made[maker] = child(*job, python=PEER_PYTHON if maker == "timm" else sys.executable)
            log(f"made      {model}  {maker:9} {described(made[maker])}")
            notes.write_text(json.dumps(made, indent=1))
    return made


def model_size(model: str) -> int:
    """Return the image size of a model, pixels."""
    import zoo

    return zoo.spec(model).input_shape[0]


def described(found: dict[str, Any]) -> str:
    """Return the result of a maker in one line."""
    return ", ".join(
        f"{key} {value:.2f} s" if isinstance(value, float) else f"{key}: {value}" for key, value in found.items()
    )


def files_of(model: str, folder: Path, runtime: str) -> dict[str, dict[str, str]]:
    """Return name and path of existing files of a runtime by precision, ours first."""
    found: dict[str, dict[str, str]] = {}
    for precision, (ours, peers) in PAIRS[runtime].items():
        if precision == "dynamic" and not model.startswith(DYNAMIC):
            continue
        places = {ours: folder / "ours" / ours, **{peer: folder / peer for peer in peers}}
        there = {name: str(path) for name, path in places.items() if path.exists()}
        if ours in there:
            found[precision] = there
    return found


def measure(model: str, folder: Path, threads: int) -> dict[str, Any]:
    """Measure all files of a model; returns seconds by runtime and file."""
    found: dict[str, Any] = {}
    for runtime in PAIRS:
        files = files_of(model, folder, runtime)
        wanted = {name: path for one in files.values() for name, path in one.items()}
        for _ in range(PROCESSES if wanted else 0):
            times = child("inference_time.py", model, threads, json.dumps(wanted))
            if "error" in times:
                log(f"time      {model}  {runtime}: {times['error']}")
                break
            for name, bursts in times.items():
                found.setdefault(runtime, {}).setdefault(name, []).extend(bursts)
    return found


def compare(model: str, folder: Path, times: dict[str, Any]) -> list[dict[str, Any]]:
    """Compare with the best peer of the same runtime and precision; returns and prints a row for each."""
    from export.benchmark.statistics import latency_ratio, summarize

    rows = []
    for runtime, by_name in times.items():
        latency = {name: summarize(bursts) for name, bursts in by_name.items()}
        for precision, files in files_of(model, folder, runtime).items():
            ours, *peers = (name for name in files if name in latency)
            row = {"model": model, "runtime": runtime, "precision": precision, "format": ours, **latency[ours]}
            row["peers"] = {peer: latency[peer]["p50"] for peer in peers}
            if peers:
                best = min(peers, key=lambda peer: latency[peer]["p50"])
                row |= {"best": best, "ratio": latency_ratio(latency[ours]["rounds"], latency[best]["rounds"])}
            rows.append(row)
            log(line(row))
    return rows


def line(row: dict[str, Any]) -> str:
    """Return the text of a row."""
    what = (
        f"latency   {row['model']:22} {row['runtime']:12} {row['precision']:8} {row['format']:15} {row['p50']:8.2f} ms"
    )
    if "best" not in row:
        return f"{what}   no peer"
    low, middle, high = row["ratio"]
    peers = ", ".join(f"{name} {value:.2f}" for name, value in row["peers"].items())
    verdict = "" if middle <= MOST else "   SLOWER" if low > MOST else "   slower, perhaps by chance"
    return f"{what}   {middle:.3f} ({low:.3f} to {high:.3f}) of {row['best']}; {peers} ms{verdict}"


def int8_ratios(model: str, times: dict[str, Any]) -> dict[str, list[float]]:
    """Return and print the ratio of int8 to float32 latency, by runtime."""
    from export.benchmark.statistics import latency_ratio, summarize

    found = {}
    for runtime, by_name in times.items():
        names = [PAIRS[runtime][precision][0] for precision in ("int8", "float32") if precision in PAIRS[runtime]]
        if len(names) == 2 and all(name in by_name for name in names):
            found[runtime] = list(latency_ratio(*(summarize(by_name[name])["rounds"] for name in names)))
            asked = f" (at most {INT8_FRACTION:.3f})" if model == "resnet50" else ""
            log(f"int8      {model:22} {runtime:12} {found[runtime][1]:.3f} of float32{asked}")
    return found


def exports(model: str, made: dict[str, Any]) -> None:
    """Print the seconds of exports."""
    ours = {name: value for name, value in made["ours"].items() if isinstance(value, float)}
    asked = f" (at most {MOST_SECONDS[model]})" if model in MOST_SECONDS else ""
    theirs = {"Keras": made["keras"].get("keras.onnx"), "timm": made["timm"].get("seconds")}
    peers = ", ".join(f"{who} {value:.2f} s" for who, value in theirs.items() if isinstance(value, float))
    if "onnx" in ours:
        every = f"all {len(ours)} formats {sum(ours.values()):.1f} s"
        log(f"export    {model:22} onnx {ours['onnx']:.2f} s{asked}; {peers}; {every}")


def print_profiles(rows: list[dict[str, Any]], folder: Path, threads: int, every: bool) -> None:
    """Print the time of each operator, ours and the best peer's, where ours is slower or for every pair."""
    for row in rows:
        if "best" in row and (every or row["ratio"][1] > MOST):
            files = files_of(row["model"], folder, row["runtime"])[row["precision"]]
            for name in (row["format"], row["best"]):
                parts = child("inference_time.py", row["model"], threads, json.dumps({name: files[name]}), "profile")
                text = (
                    ", ".join(f"{op} {ms:.2f}" for op, ms in list(parts.items())[:10])
                    if "error" not in parts
                    else parts
                )
                log(f"profile   {row['model']}  {row['runtime']} {row['precision']}  {name}: {text}")


def main() -> None:
    """Make, measure and compare the files of each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"one of {', '.join(MODELS)}, or others")
    parser.add_argument("--folder", type=Path, help="folder of the files; a temporary folder by default")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--again", action="store_true", help="make the files anew")
    parser.add_argument("--profile", action="store_true", help="print the time of each operator for every pair")
    given = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for model in given.models or MODELS:
            folder = ((given.folder or Path(scratch)) / model).resolve()
            made = make(model, folder, given.again)
            times = measure(model, folder, given.threads)
            (folder / "times.json").write_text(json.dumps(times))
            rows = compare(model, folder, times)
            found[model] = {"made": made, "rows": rows, "int8": int8_ratios(model, times)}
            exports(model, made)
            print_profiles(rows, folder, given.threads, given.profile)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
