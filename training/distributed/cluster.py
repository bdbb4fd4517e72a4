"""Which processes train together: the cluster that TF_CONFIG or SLURM describes.

Kubeflow's training operator sets TF_CONFIG; `srun` sets SLURM_STEP_NUM_TASKS and its kin for each of its tasks.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from typing import Any

from zoo.common.errors import BadOption

# Jobs of a cluster whose tasks train, the chief first.
TRAINS = ("chief", "master", "worker")
# Ports that tasks of SLURM listen on: two steps on one machine are to have others.
FIRST_PORT, PORTS = 20_000, 20_000
TELL = 'Expected TF_CONFIG as {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}.'


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes of a training.

    Args:
        workers: their addresses, host:port, the chief's first.
        worker: which of them this is.
        local: which of those on this machine this is.
        beside: how many are on this machine.
    """

    workers: tuple[str, ...]
    worker: int
    local: int = 0
    beside: int = 1


def find_cluster(environment: Mapping[str, str] | None = None) -> Cluster | None:
    """Return the cluster that the environment describes, TF_CONFIG before SLURM; None if neither tells of any.

    Raises:
        BadOption: what it says cannot be understood, or is no cluster that trains here.
    """
    environment = os.environ if environment is None else environment
    if environment.get("TF_CONFIG", "").strip():
        return _of_tf_config(environment["TF_CONFIG"])
    # Tasks of a step, and not of a job: what a batch script runs without srun is one process.
    if environment.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        return _of_slurm(environment)
    return None


def _of_tf_config(text: str) -> Cluster | None:
    try:
        content = json.loads(text)
        cluster, task = content.get("cluster") or {}, content.get("task") or {}
        jobs = {str(job): [str(address) for address in _listed(addresses)] for job, addresses in cluster.items()}
        kind, index = str(task.get("type", "worker")), int(task.get("index", 0))
    except (AttributeError, TypeError, ValueError) as error:
        raise BadOption(f"{TELL} Received: TF_CONFIG={text[:200]!r} ({error})") from error
    if not jobs:
        return None
    _check_jobs(jobs, kind)
    workers = [address for job in TRAINS for address in jobs.get(job, ())]
    if not 0 <= index < len(jobs[kind]) or not all(re.fullmatch(r".+:\d+", address) for address in workers):
        raise BadOption(f"{TELL} Received: TF_CONFIG={text[:200]!r}")
    before = sum(len(jobs.get(job, ())) for job in TRAINS[: TRAINS.index(kind)])
    return _placed(workers, before + index)


def _listed(addresses: Any) -> Any:
    if not isinstance(addresses, list):
        raise TypeError("addresses must be a list")
    return addresses


def _check_jobs(jobs: Mapping[str, list[str]], kind: str) -> None:
    """Raise BadOption for a cluster that has other jobs than those that train."""
    if "ps" in jobs:
        raise BadOption(
            "Parameter servers cannot train a model of Keras 3. Received: TF_CONFIG with the job 'ps'. Leave it out: "
            "strategy=multiworker has workers alone, which share their gradients."
        )
    unknown = sorted(set(jobs) - set(TRAINS))
    if unknown or kind not in jobs or not jobs[kind]:
        what = f"the job {unknown[0]!r}" if unknown else f"the task {kind!r}, which its cluster has no addresses for"
        raise BadOption(f"{TELL} Received: TF_CONFIG with {what}.")


def _of_slurm(environment: Mapping[str, str]) -> Cluster:
    """Return the cluster of the tasks of a step, divided among the nodes as SLURM does by default, in blocks.

    TensorFlow's SlurmClusterResolver does it for tasks with GPUs only: it counts tasks in steps of GPUs.
    """
    from tensorflow.python.distribute.cluster_resolver import slurm_cluster_resolver as slurm

    try:
        total, rank = (int(environment[f"SLURM_{name}"]) for name in ("STEP_NUM_TASKS", "PROCID"))
        nodes = slurm.expand_hostlist(environment["SLURM_STEP_NODELIST"])
        counts = slurm.expand_tasks_per_node(environment["SLURM_STEP_TASKS_PER_NODE"])
        first = FIRST_PORT + int(environment.get("SLURM_JOB_ID", "0")) % PORTS
        workers = [f"{node}:{first + i}" for node, count in zip(nodes, counts, strict=True) for i in range(count)]
        if len(workers) != total or not 0 <= rank < total:
            raise ValueError(f"{len(workers)} tasks on the nodes")
    except (KeyError, ValueError) as error:
        names = ("STEP_NUM_TASKS", "PROCID", "STEP_NODELIST", "STEP_TASKS_PER_NODE")
        given = ", ".join(f"SLURM_{name}={environment.get(f'SLURM_{name}')}" for name in names)
        raise BadOption(
            f"Expected the variables of a SLURM step, as srun sets them. Received: {given} ({error}). Start by srun, "
            "or set strategy=one."
        ) from error
    return _placed(workers, rank)


def _placed(workers: list[str], worker: int) -> Cluster:
    hosts = [address.rpartition(":")[0] for address in workers]
    local = hosts[:worker].count(hosts[worker])
    return Cluster(tuple(workers), worker, local, hosts.count(hosts[worker]))
