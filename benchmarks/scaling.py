"""How training scales over machines, on paper and in simulation: `python benchmarks/scaling.py` writes docs/scaling.md.

On paper: the time of a step through `zoo train` and the bytes of its gradients, measured here, put into the formula of
a ring all-reduce. In simulation: 1, 2 and 4 workers on this machine, each in a network namespace that sends at a
limited rate, whose all-reduce of the same bytes is timed by itself, so that sharing the processor does not count as
sending. It needs to be root.
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
# Networks, pixels and images a step.
NETWORKS = (("resnet50", 160, 16), ("resnet20", 32, 128))
WORKERS, GIGABITS = (8, 64, 512), (10, 100)
# A device on which a step takes so many times less.
FASTER = 10
# What a message between two machines of a data centre takes, seconds; an assumption.
LATENCY = 50e-6
# Of a step, what comes after the first gradient is there: the backward pass has twice the work of the forward one.
BACKWARD = 2 / 3
# Of a packet of 1,514 bytes, what is not headers.
PAYLOAD = 1448 / 1514
# In simulation: workers, and Mbit/s of each, 0 for no limit.
LOCAL, MEGABITS = (1, 2, 4), (100.0, 1000.0, 0.0)
SMALL = ("resnet20", 32, 32)


def ring_seconds(size: float, workers: int, bits: float, latency: float = 0.0) -> float:
    """Return how long a ring all-reduce takes, in seconds.

    Each worker sends 2 (n - 1) pieces of 1 / n of the bytes, one after the other (Patarasuk and Yuan 2009,
    doi:10.1016/j.jpdc.2008.09.002).

    Args:
        size: bytes that are added up.
        workers: how many there are.
        bits: that each worker can send in a second.
        latency: of a message, seconds.
    """
    return 2 * (workers - 1) / workers * 8 * size / bits + 2 * (workers - 1) * latency


def efficiency(step: float, sending: float, *, overlap: bool) -> float:
    """Return the share of its time that a worker spends learning.

    Args:
        step: seconds of a step of one worker alone.
        sending: seconds of the all-reduce.
        overlap: gradients are sent while the backward pass computes the next ones, instead of after it.
    """
    backward = BACKWARD * step
    return step / (step - backward + max(backward, sending) if overlap else step + sending)


@dataclasses.dataclass(frozen=True)
class Measured:
    """A network on one worker.

    Args:
        name: of the network.
        pixels: height and width.
        batch: images a step.
        step: seconds of a step through `zoo train`.
        size: bytes of its gradients, in float32.
        tensors: how many there are.
    """

    name: str
    pixels: int
    batch: int
    step: float
    size: int
    tensors: int


def measure_network(name: str, pixels: int, batch: int) -> dict[str, Any]:
    """Return what `Measured` holds, measured in this process."""
    import statistics

    from throughput import CLASSES, ours

    import zoo

    rates = ours(name, pixels, batch)[1:]
    weights = zoo.get(name, input_shape=(pixels, pixels, 3), classes=CLASSES).trainable_variables
    # Gradients are cast to float32 before they are added up.
    size = sum(4 * int(v.value.shape.num_elements()) for v in weights)
    return {"step": batch / statistics.median(rates), "size": size, "tensors": len(weights)}


def child(*arguments: str) -> dict[str, Any]:
    """Return what this file prints last, in a process of its own."""
    command = [sys.executable, str(HERE / "scaling.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent, env=environment())
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def environment() -> dict[str, str]:
    """Return the environment of a worker: no proxy stands between them."""
    kept = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    return {**kept, "PYTHONPATH": str(HERE.parent), "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}


def simulate(workers: int, plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what so many workers measured at each of `MEGABITS`; raises OSError."""
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
    """Set the rates that the first worker asks for, and return what it finds."""
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


def expected_rows(network: Measured) -> list[str]:
    """Return the table of what is expected of a network."""
    rows = []
    for gigabits in GIGABITS:
        for workers in WORKERS:
            sending = ring_seconds(network.size, workers, gigabits * 1e9, LATENCY)
            shares = [
                efficiency(network.step / faster, sending, overlap=overlap)
                for faster in (1, FASTER)
                for overlap in (False, True)
            ]
            told = " | ".join(f"{100 * share:.1f}%" for share in shares)
            rows.append(f"| {gigabits} Gbit/s | {workers} | {1e3 * sending:.1f} ms | {told} |")
    return rows


def shown_rate(megabits: float) -> str:
    """Return a rate in words."""
    return f"{megabits:g} Mbit/s" if megabits else "no limit"


def checked_rows(found: dict[int, list[dict[str, Any]]], sizes: Sequence[int]) -> list[str]:
    """Return the table of all-reduces in simulation, against the formula, and that plus the time of the cores."""
    rows = []
    for workers, rates in found.items():
        for row in rates if workers > 1 else []:
            pairs = zip(row["found"]["adding"], rates[-1]["found"]["adding"], strict=True)
            for size, (took, cores) in zip(sizes, pairs, strict=True):
                told = " | |"
                if row["rate"]:
                    paper = ring_seconds(size, workers, row["rate"] * 1e6 * PAYLOAD, message_seconds(workers, rates))
                    told = f"{paper:.3f} s | {took / (paper + cores):.2f} | {took / paper:.2f}"
                rows.append(f"| {workers} | {shown_rate(row['rate'])} | {size / 1e6:.2f} MB | {took:.3f} s | {told} |")
    return rows


def message_seconds(workers: int, rates: list[dict[str, Any]]) -> float:
    """Return what a message takes: the smallest all-reduce, without a limit, is 2 (n - 1) of them."""
    return rates[-1]["found"]["latency"] / max(1, 2 * (workers - 1))


def step_rows(found: dict[int, list[dict[str, Any]]]) -> list[str]:
    """Return the table of whole steps in simulation: computing alone, and with all gradients added up."""
    rows = []
    for workers, rates in found.items():
        for row in rates:
            one = row["found"]
            bits, latency = row["rate"] * 1e6 * PAYLOAD, message_seconds(workers, rates)
            paper = one["alone"] + (ring_seconds(one["size"], workers, bits, latency) if bits else 0.0)
            told = f"{1e3 * paper:.0f} ms | {one['together'] / paper:.2f}" if bits or workers == 1 else " |"
            rows.append(
                f"| {workers} | {shown_rate(row['rate'])} | {1e3 * one['alone']:.0f} ms | "
                f"{1e3 * one['together']:.0f} ms | {told} |"
            )
    return rows


def worst(rows: Sequence[str]) -> tuple[float, float]:
    """Return the smallest and the largest share of measured against expected time in a table."""
    shares = [float(cell) for row in rows if (cell := row.split("|")[-2].strip())]
    return min(shares), max(shares)


def processor() -> str:
    """Return the processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def simulation(sizes: Sequence[int]) -> str:
    """Return the part of the page on local workers that add up so many bytes, or why there is none."""
    from scaling_page import REFUSED

    plan = {"bytes": [[size] for size in sizes], "step": SMALL}
    try:
        return told({workers: simulate(workers, plan) for workers in LOCAL}, sizes)
    except OSError as error:
        return REFUSED.format(error=" ".join(str(error).split()))


def told(found: dict[int, list[dict[str, Any]]], sizes: Sequence[int]) -> str:
    """Return the part of the page on what local workers measured."""
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


def paper(networks: Sequence[Measured], load: float) -> list[str]:
    """Return the parts of the page on what is expected, measured while so many processes wanted the cores."""
    from scaling_page import NETWORK, PAGE_HEAD

    hardware, date = f"{processor()}, {os.cpu_count()} cores", datetime.date.today().isoformat()
    parts = [PAGE_HEAD.format(date=date, hardware=hardware, load=load, latency=1e6 * LATENCY, faster=FASTER)]
    for n in networks:
        size = f"{n.size / 1e6:.1f} MB in {n.tensors} tensors"
        rows = "\n".join(expected_rows(n))
        parts.append(NETWORK.format(n=n, milliseconds=1e3 * n.step, size=size, rows=rows, faster=FASTER))
    return parts


def main() -> None:
    """Measure, and write the page."""
    # Who is asked to end leaves no namespaces behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    load = os.getloadavg()[0]
    networks = [Measured(*n, **child("network", *map(str, n))) for n in NETWORKS]
    print(*networks, sep="\n", flush=True)
    parts = paper(networks, load)
    parts.append(simulation([network.size for network in networks]))
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join(parts))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["network"]:
        name, pixels, batch = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
        print(json.dumps(measure_network(name, pixels, batch)))
    else:
        main()
