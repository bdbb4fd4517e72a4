"""Workers on one machine, each with a network card of its own: namespaces on a bridge, sending at a limited rate."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence

NAME, NETWORK = f"zoo-scaling-{os.getpid()}", "10.77.0"
# Bytes that may leave at once: more than the 64 KiB which the kernel hands over in a piece.
BURST = 256 * 1024


def run(*command: str) -> None:
    """Run a command; raises OSError with what it said."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")


def inside(worker: int) -> list[str]:
    """Return what goes before a command that is to run on a worker."""
    return ["ip", "netns", "exec", f"{NAME}-{worker}"]


def address(worker: int) -> str:
    """Return the address of a worker."""
    return f"{NETWORK}.{worker + 1}"


@contextlib.contextmanager
def joined(workers: int) -> Iterator[None]:
    """Give each worker a namespace, joined to the others by a bridge; all of it goes in the end.

    Raises:
        OSError: the kernel does not allow it; says what it said.
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
            # What is inside goes with it.
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def limit(workers: Sequence[int], megabits: float) -> None:
    """Let workers send at so many Mbit/s each, 0 for as fast as the machine can; raises OSError."""
    for worker in workers:
        shape = ["tc", "-n", f"{NAME}-{worker}", "qdisc"]
        subprocess.run([*shape, "del", "dev", "eth0", "root"], capture_output=True)
        if megabits:
            rate = ["rate", f"{megabits}mbit", "burst", str(BURST), "latency", "200ms"]
            run(*shape, "add", "dev", "eth0", "root", "tbf", *rate)
