"""Predict and simulate how training scales over machines: `python benchmarks/scaling.py` writes docs/scaling.md.

Prediction: the time of a step of `zoo train` and the bytes of its gradients, measured here, are inserted into the
formula of a ring all-reduce. Simulation: 1, 2 and 4 workers on this machine, each in a network namespace with a limited
rate, run an all-reduce of the same bytes, timed alone, so that sharing the processor does not count as sending. It
needs root.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
PAGE = HERE.parent / "docs/scaling.md"
# Model, pixels and images in a step.
MODELS = (("resnet50", 160, 16), ("resnet20", 32, 128))
WORKERS, GIGABITS = (8, 64, 512), (10, 100)
# Speed of a faster device, relative to this one.
FASTER = 10
# Assumed seconds of a message between two machines of a data center.
LATENCY = 50e-6
# Fraction of a step after the first gradient: the backward pass takes twice as long as the forward pass.
BACKWARD = 2 / 3
# Fraction of a packet of 1,514 bytes without headers.
PAYLOAD = 1448 / 1514
# Simulation: numbers of workers, and Mbit/s of each, 0 for no limit.
LOCAL, MEGABITS = (1, 2, 4), (100.0, 1000.0, 0.0)
SMALL = ("resnet20", 32, 32)


def ring_seconds(size: float, workers: int, bits: float, latency: float = 0.0) -> float:
    """Return the seconds of a ring all-reduce.

    Each worker sends 2 (n - 1) pieces of 1 / n of the bytes, one after the other (Patarasuk and Yuan 2009,
    doi:10.1016/j.jpdc.2008.09.002).

    Args:
        size: bytes of the gradients.
        workers: number of workers.
        bits: bits that each worker sends in a second.
        latency: seconds of a message.
    """
    return 2 * (workers - 1) / workers * 8 * size / bits + 2 * (workers - 1) * latency


def efficiency(step: float, sending: float, *, overlap: bool) -> float:
    """Return the fraction of time that a worker computes.

    Args:
        step: seconds of a step of one worker alone.
        sending: seconds of the all-reduce.
        overlap: gradients are sent while the backward pass computes the next ones, instead of after it.
    """
    backward = BACKWARD * step
    return step / (step - backward + max(backward, sending) if overlap else step + sending)


@dataclasses.dataclass(frozen=True)
class Measured:
    """A model on one worker.

    Args:
        name: name of the model.
        pixels: height and width.
        batch: images in a step.
        step: seconds of a step through `zoo train`.
        size: bytes of its gradients, in float32.
        tensors: number of gradient tensors.
    """

    name: str
    pixels: int
    batch: int
    step: float
    size: int
    tensors: int


def measure_model(name: str, pixels: int, batch: int) -> dict[str, Any]:
    """Return the measured fields of `Measured`, from this process."""
    import statistics

    from throughput import CLASSES, ours

    import zoo

    rates = ours(name, pixels, batch)[1:]
    weights = zoo.get(name, input_shape=(pixels, pixels, 3), classes=CLASSES).trainable_variables
    # Gradients are summed in float32.
    size = sum(4 * int(v.value.shape.num_elements()) for v in weights)
    return {"step": batch / statistics.median(rates), "size": size, "tensors": len(weights)}


def child(*arguments: str) -> dict[str, Any]:
    """Run this file in a separate process, and return the JSON in its last line."""
    command = [sys.executable, str(HERE / "scaling.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent, env=environment())
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def environment() -> dict[str, str]:
    """Return the environment of a worker, without proxies."""
    variables = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    return {**variables, "PYTHONPATH": str(HERE.parent), "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}


def simulate(workers: int, plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the measurements of so many workers at each rate of `MEGABITS`; raises OSError."""
    from namespaces import address, inside, joined, limit

    addresses = ",".join(map(address, range(workers)))
    rates = ",".join(map(str, MEGABITS))
    with joined(workers):
        started: list[subprocess.Popen] = []
        try:
            for worker in range(workers):
                options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE} if not worker else {}
                command = [sys.executable, str(HERE / "scaling_worker.py"), str(worker), addresses, rates]
                started.append(
                    subprocess.Popen(
                        [*inside(worker), *command, json.dumps(plan)],
                        text=True,
                        env=environment(),
                        stderr=subprocess.DEVNULL,
                        **{"stdout": subprocess.DEVNULL, **options},
                    )
                )
            return listen(started[0], lambda rate: limit(range(workers), rate))
        finally:
            for process in started:
                process.kill()
                process.wait()


def listen(first: subprocess.Popen, limit: Any) -> list[dict[str, Any]]:
    """Set the rates that the first worker requests, and return its measurements."""
    found = []
    for line in first.stdout:
        if line.startswith('{"rate"'):
            limit(json.loads(line)["rate"])
            first.stdin.write("\n")
            first.stdin.flush()
        elif line.startswith('{"found"'):
            found.append(json.loads(line))
            print(line.strip(), flush=True)
    if len(found) < len(MEGABITS):
        raise OSError(f"a worker ended early, after {len(found)} of {len(MEGABITS)} rates")
    return found


def expected_rows(model: Measured) -> list[str]:
    """Return the table of predictions for a model."""
    rows = []
    for gigabits in GIGABITS:
        for workers in WORKERS:
            sending = ring_seconds(model.size, workers, gigabits * 1e9, LATENCY)
            fractions = [
                efficiency(model.step / faster, sending, overlap=overlap)
                for faster in (1, FASTER)
                for overlap in (False, True)
            ]
            cells = " | ".join(f"{100 * fraction:.1f}%" for fraction in fractions)
            rows.append(f"| {gigabits} Gbit/s | {workers} | {1e3 * sending:.1f} ms | {cells} |")
    return rows


def shown_rate(megabits: float) -> str:
    """Return a rate as text."""
    return f"{megabits:g} Mbit/s" if megabits else "no limit"


def checked_rows(found: dict[int, list[dict[str, Any]]], sizes: Sequence[int]) -> list[str]:
    """Return the table of simulated all-reduces, compared with the formula, and with it plus the processor time."""
    rows = []
    for workers, rates in found.items():
        for row in rates if workers > 1 else []:
            pairs = zip(row["found"]["all_reduce"], rates[-1]["found"]["all_reduce"], strict=True)
            for size, (took, cores) in zip(sizes, pairs, strict=True):
                cells = " | |"
                if row["rate"]:
                    paper = ring_seconds(size, workers, row["rate"] * 1e6 * PAYLOAD, message_seconds(workers, rates))
                    cells = f"{paper:.3f} s | {took / (paper + cores):.2f} | {took / paper:.2f}"
                rows.append(f"| {workers} | {shown_rate(row['rate'])} | {size / 1e6:.2f} MB | {took:.3f} s | {cells} |")
    return rows


def message_seconds(workers: int, rates: list[dict[str, Any]]) -> float:
    """Return the seconds of a message: the smallest all-reduce without a limit has 2 (n - 1) of them."""
    return rates[-1]["found"]["latency"] / max(1, 2 * (workers - 1))


def step_rows(found: dict[int, list[dict[str, Any]]]) -> list[str]:
    """Return the table of simulated steps: computation alone, and with the all-reduce of all gradients."""
    rows = []
    for workers, rates in found.items():
        for row in rates:
            one = row["found"]
            bits, latency = row["rate"] * 1e6 * PAYLOAD, message_seconds(workers, rates)
            paper = one["alone"] + (ring_seconds(one["size"], workers, bits, latency) if bits else 0.0)
            cells = f"{1e3 * paper:.0f} ms | {one['together'] / paper:.2f}" if bits or workers == 1 else " |"
            rows.append(
                f"| {workers} | {shown_rate(row['rate'])} | {1e3 * one['alone']:.0f} ms | "
                f"{1e3 * one['together']:.0f} ms | {cells} |"
            )
    return rows


def worst(rows: Sequence[str]) -> tuple[float, float]:
    """Return the smallest and the largest ratio of measured to expected time in a table."""
    ratios = [float(cell) for row in rows if (cell := row.split("|")[-2].strip())]
    return min(ratios), max(ratios)


def processor() -> str:
    """Return the processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def simulation(sizes: Sequence[int]) -> str:
    """Return the part of the page about the simulation, or the reason why there is none."""
    from scaling_page import REFUSED

    plan = {"bytes": [[size] for size in sizes], "step": SMALL}
    try:
        return simulated({workers: simulate(workers, plan) for workers in LOCAL}, sizes)
    except OSError as error:
        return REFUSED.format(error=" ".join(str(error).split()))


def simulated(found: dict[int, list[dict[str, Any]]], sizes: Sequence[int]) -> str:
    """Return the part of the page with the measurements of local workers."""
    from scaling_page import SIMULATED

    checked, steps = checked_rows(found, sizes), step_rows(found)
    low, high = worst(checked)
    step_low, step_high = worst(steps)
    return SIMULATED.format(
        checked="\n".join(checked),
        steps="\n".join(steps),
        small=f"{SMALL[0]} at {SMALL[1]} pixels, batch {SMALL[2]}, {found[1][0]['found']['size'] / 1e6:.2f} MB",
        low=low,
        high=high,
        step_low=step_low,
        step_high=step_high,
        payload=100 * PAYLOAD,
    )


def predictions(models: Sequence[Measured], load: float) -> list[str]:
    """Return the parts of the page with predictions, measured under a load average."""
    from scaling_page import NETWORK, PAGE_HEAD

    hardware, date = f"{processor()}, {os.cpu_count()} cores", datetime.date.today().isoformat()
    parts = [PAGE_HEAD.format(date=date, hardware=hardware, load=load, latency=1e6 * LATENCY, faster=FASTER)]
    for n in models:
        size = f"{n.size / 1e6:.1f} MB in {n.tensors} tensors"
        rows = "\n".join(expected_rows(n))
        parts.append(NETWORK.format(n=n, milliseconds=1e3 * n.step, size=size, rows=rows, faster=FASTER))
    return parts


def main() -> None:
    """Measure and write the page."""
    # SIGTERM removes the namespaces too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    load = os.getloadavg()[0]
    models = [Measured(*n, **child("model", *map(str, n))) for n in MODELS]
    print(*models, sep="\n", flush=True)
    parts = predictions(models, load)
    parts.append(simulation([model.size for model in models]))
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join(parts))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["model"]:
        name, pixels, batch = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
        print(json.dumps(measure_model(name, pixels, batch)))
    else:
        main()
