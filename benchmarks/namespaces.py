"""Connect workers on one machine through network namespaces on a bridge, with a limited rate."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence

NAME, NETWORK = f"zoo-scaling-{os.getpid()}", "10.77.0"
# Bytes that may be sent at once: more than the 64 KiB of one kernel buffer.
BURST = 256 * 1024


def run(*command: str) -> None:
    """Run a command; raises OSError with its output."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")


def inside(worker: int) -> list[str]:
    """Return the prefix of a command that runs on a worker."""
    return ["ip", "netns", "exec", f"{NAME}-{worker}"]


def address(worker: int) -> str:
    """Return the address of a worker."""
    return f"{NETWORK}.{worker + 1}"


@contextlib.contextmanager
def joined(workers: int) -> Iterator[None]:
    """Create a namespace for each worker, connected by a bridge; remove all of them at the end.

    Raises:
        OSError: the kernel does not allow it.
    """
    middle = f"{NAME}-bridge"
    try:
        run("ip", "netns", "add", middle)
        run("ip", "-n", middle, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", middle, "link", "set", "bridge", "up")
        for worker in range(workers):
            name, port = f"{NAME}-{worker}", f"port{worker}"
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
            run("ip", "-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", middle)
            run("ip", "-n", middle, "link", "set", port, "master", "bridge", "up")
            run("ip", "-n", name, "address", "add", f"{address(worker)}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
        yield
    finally:
        for name in (middle, *(f"{NAME}-{worker}" for worker in range(workers))):
            # Its interfaces are removed with it.
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def limit(workers: Sequence[int], megabits: float) -> None:
    """Limit the rate of each worker in Mbit/s, 0 for no limit; raises OSError."""
    for worker in workers:
        shape = ["tc", "-n", f"{NAME}-{worker}", "qdisc"]
        subprocess.run([*shape, "del", "dev", "eth0", "root"], capture_output=True)
        if megabits:
            rate = ["rate", f"{megabits}mbit", "burst", str(BURST), "latency", "200ms"]
            run(*shape, "add", "dev", "eth0", "root", "tbf", *rate)
