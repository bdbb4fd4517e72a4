"""The cluster of processes that train together, as TF_CONFIG or SLURM describes it.

Kubeflow's training operator sets TF_CONFIG; `srun` sets SLURM_STEP_NUM_TASKS and similar variables for each task.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

from training.common.compat import slurm_hosts
from zoo.common.errors import BadOption
from zoo.reading.json_files import parse_json

# Jobs of a cluster that train, the chief first.
TRAINING_JOBS = ("chief", "master", "worker")
# Ports of SLURM tasks: steps on one machine use different ones.
FIRST_PORT, PORTS = 20_000, 20_000
USAGE = 'Expected TF_CONFIG as {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}.'


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes of a training.

    Args:
        workers: addresses, host:port, the chief's first.
        worker: index of this process.
        local: index of this process among those on this machine.
        local_workers: number of processes on this machine.
    """

    workers: tuple[str, ...]
    worker: int
    local: int = 0
    local_workers: int = 1


def find_cluster(environment: Mapping[str, str] | None = None) -> Cluster | None:
    """Return the cluster of the environment, from TF_CONFIG before SLURM; None if neither is set.

    Raises:
        BadOption: the variables are invalid, or the cluster has other jobs than training.
    """
    environment = os.environ if environment is None else environment
    if environment.get("TF_CONFIG", "").strip():
        return _from_tf_config(environment["TF_CONFIG"])
    # Tasks of a step, not of a job: a batch script without srun is one process.
    if environment.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        return _from_slurm(environment)
    return None


def _from_tf_config(text: str) -> Cluster | None:
    try:
        content = parse_json(text, dict)
        cluster, task = content.get("cluster") or {}, content.get("task") or {}
        jobs = {str(job): [str(address) for address in _as_list(addresses)] for job, addresses in cluster.items()}
        kind, index = str(task.get("type", "worker")), int(task.get("index", 0))
    except (AttributeError, TypeError, ValueError) as error:
        raise BadOption(f"{USAGE} Received: TF_CONFIG={text[:200]!r} ({error})") from error
    if not jobs:
        return None
    _check_jobs(jobs, kind)
    workers = [address for job in TRAINING_JOBS for address in jobs.get(job, ())]
    if not 0 <= index < len(jobs[kind]) or not all(re.fullmatch(r".+:\d+", address) for address in workers):
        raise BadOption(f"{USAGE} Received: TF_CONFIG={text[:200]!r}")
    before = sum(len(jobs.get(job, ())) for job in TRAINING_JOBS[: TRAINING_JOBS.index(kind)])
    return _cluster(workers, before + index)


def _as_list(addresses: Any) -> Any:
    if not isinstance(addresses, list):
        raise TypeError("addresses must be a list")
    return addresses


def _check_jobs(jobs: Mapping[str, list[str]], kind: str) -> None:
    """Raise BadOption for a cluster with jobs that do not train."""
    if "ps" in jobs:
        raise BadOption(
            "Expected TF_CONFIG without parameter servers, which Keras 3 does not support. Received: TF_CONFIG with "
            "the job 'ps'. Leave it out: the workers of strategy=multiworker share their gradients."
        )
    unknown = sorted(set(jobs) - set(TRAINING_JOBS))
    if unknown or kind not in jobs or not jobs[kind]:
        what = f"the job {unknown[0]!r}" if unknown else f"the task {kind!r} without addresses in its cluster"
        raise BadOption(f"{USAGE} Received: TF_CONFIG with {what}.")


def _from_slurm(environment: Mapping[str, str]) -> Cluster:
    """Return the cluster of the tasks of a step, assigned to nodes in blocks, SLURM's default.

    TensorFlow's SlurmClusterResolver supports tasks with GPUs only: it counts tasks in steps of GPUs.
    """
    try:
        total, rank = (int(environment[f"SLURM_{name}"]) for name in ("STEP_NUM_TASKS", "PROCID"))
        hosts = slurm_hosts(environment["SLURM_STEP_NODELIST"], environment["SLURM_STEP_TASKS_PER_NODE"])
        first = FIRST_PORT + int(environment.get("SLURM_JOB_ID", "0")) % PORTS
        workers = [f"{node}:{first + i}" for node, count in hosts for i in range(count)]
        if len(workers) != total or not 0 <= rank < total:
            raise ValueError(f"{len(workers)} tasks on the nodes")
    except (KeyError, ValueError) as error:
        names = ("STEP_NUM_TASKS", "PROCID", "STEP_NODELIST", "STEP_TASKS_PER_NODE")
        given = ", ".join(f"SLURM_{name}={environment.get(f'SLURM_{name}')}" for name in names)
        raise BadOption(
            f"Expected the variables of a SLURM step, as srun sets them. Received: {given} ({error}). Start with srun, "
            "or set strategy=one."
        ) from error
    return _cluster(workers, rank)


def _cluster(workers: list[str], worker: int) -> Cluster:
    hosts = [address.rpartition(":")[0] for address in workers]
    local = hosts[:worker].count(hosts[worker])
    return Cluster(tuple(workers), worker, local, hosts.count(hosts[worker]))
