"""Devices of training: clusters from the environment, and strategies that are refused before anything is built."""

from __future__ import annotations

import json

import pytest

import training.fit.prepare as prepare_module
from training.distributed.cluster import Cluster, find_cluster
from training.distributed.precision import choose_precision
from training.distributed.strategy import check_run_path
from training.recipe.recipe import recipes
from zoo.common.errors import BadOption
from zoo.common.processor import has_bfloat16

HOSTS = ["a:2222", "b:2222", "a:2223"]


def tf_config(kind="worker", index=0, **cluster):
    """Return TF_CONFIG of a cluster."""
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


def slurm(tasks=5, rank=0, nodes="node[1-2],big", counts="2(x2),1", **changed):
    """Return the variables that srun sets for a task."""
    names = {"STEP_NUM_TASKS": tasks, "PROCID": rank, "STEP_NODELIST": nodes, "STEP_TASKS_PER_NODE": counts}
    return {f"SLURM_{name}": str(value) for name, value in {**names, "JOB_ID": 7, **changed}.items()}


def test_cluster_of_tf_config():
    """Workers are in order, the chief first; each knows its index and the workers on its machine."""
    assert find_cluster(tf_config(worker=HOSTS, index=2)) == Cluster(tuple(HOSTS), 2, 1, 2)
    # As Kubeflow's training operator writes it.
    found = find_cluster(tf_config("worker", 1, chief=["c:1"], worker=["d:1", "e:1"]) | slurm())
    assert found == Cluster(("c:1", "d:1", "e:1"), 2)
    assert find_cluster(tf_config("chief", 0, chief=["c:1"], worker=["d:1"])).worker == 0


def test_cluster_of_slurm():
    """Tasks are placed on the nodes of their step in blocks, each with its own port."""
    nodes = ("node1:20007", "node1:20008", "node2:20007", "node2:20008", "big:20007")
    assert [find_cluster(slurm(rank=rank)) for rank in (1, 4)] == [Cluster(nodes, 1, 1, 2), Cluster(nodes, 4)]


@pytest.mark.parametrize("environment", [{}, {"TF_CONFIG": " "}, {"TF_CONFIG": "{}"}, {"SLURM_NTASKS": "4"}])
def test_no_cluster(environment):
    """Without its variables there is no cluster; a batch script without srun is one process for any number of tasks."""
    assert find_cluster(environment) is None


MALFORMED = {
    "no JSON": ({"TF_CONFIG": "{worker"}, "TF_CONFIG='{worker'"),
    "a list": ({"TF_CONFIG": "[1]"}, "TF_CONFIG='[1]'"),
    "one address": (tf_config(worker="a:1"), "must be a list"),
    "no port": (tf_config(worker=["a", "b"]), "host:port"),
    "beyond the last": (tf_config(index=3, worker=HOSTS), "TF_CONFIG"),
    "another task": (tf_config("chief", worker=HOSTS), "the task 'chief'"),
    "parameter server": (tf_config(worker=HOSTS, ps=["p:1"]), "without parameter servers"),
    "evaluator": (tf_config(worker=HOSTS, evaluator=["p:1"]), "the job 'evaluator'"),
    "no nodes": ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}, "SLURM_STEP_NODELIST=None"),
    "fewer tasks": (slurm(tasks=4), "5 tasks on the nodes"),
    "no such task": (slurm(rank=5), "SLURM_PROCID=5"),
    "bad nodes": (slurm(nodes="node[1-"), "SLURM_STEP_NODELIST=node[1-"),
    "bad counts": (slurm(counts="two"), "SLURM_STEP_TASKS_PER_NODE=two"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_cluster_is_refused(case):
    """An invalid cluster gives one line that shows it."""
    environment, message = MALFORMED[case]
    with pytest.raises(BadOption) as caught:
        find_cluster(environment)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


TWO = tf_config(worker=["127.0.0.1:1", "127.0.0.1:2"])
RUN = ["--run", "somewhere"]
REFUSED = {
    "parameter server": (
        [*RUN, "strategy=auto"],
        tf_config(worker=HOSTS, ps=["p:1"]),
        "without parameter servers",
    ),
    "malformed TF_CONFIG": ([*RUN, "strategy=auto"], {"TF_CONFIG": "{worker"}, "Expected TF_CONFIG as"),
    "malformed SLURM": (
        [*RUN, "strategy=auto"],
        {"SLURM_STEP_NUM_TASKS": "2"},
        "Expected the variables of a SLURM step",
    ),
    "no run directory": (["strategy=auto"], TWO, "--run DIR"),
    "no run directory, asked": (["strategy=multiworker"], TWO, "--run DIR"),
    "no cluster": ([*RUN, "strategy=multiworker"], {}, "strategy=multiworker needs a cluster"),
    "replicas of workers": (
        [*RUN, "replicas=3", "strategy=auto"],
        TWO,
        "0 or the 2 devices of all workers",
    ),
    "batch of workers": ([*RUN, "data.batch_size=33", "strategy=auto"], TWO, "replicas=2, a batch of 33"),
    "float16 of workers": ([*RUN, "precision=mixed_float16", "jit=on", "strategy=auto"], TWO, "keras#18666"),
    "float16": (["strategy=mirrored", "replicas=2", "precision=mixed_float16", "jit=on"], {}, "keras#18666"),
    "XLA": (["strategy=mirrored", "replicas=2", "precision=float32", "jit=on"], {}, "jit=on needs one device"),
    "spectral norm of workers": (
        [*RUN, "strategy=auto", "regularize.spectral_norm=true"],
        TWO,
        "Spectral normalization",
    ),
    "no TPU": (["strategy=tpu"], {}, "strategy=tpu needs a TPU"),
    "replicas and rows": (["strategy=mirrored", "replicas=8", "data.batch_size=4"], {}, "replicas=8, a batch of 4"),
    "batch": (["strategy=mirrored", "replicas=3"], {}, "multiple of the number of replicas"),
    "unknown": (["strategy=horovod"], {}, "strategy must be one of"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_built(case, tmp_path, monkeypatch, zoo_command):
    """Exit code 2 and one line, without reading data and without making a model or a run directory."""
    arguments, environment, message = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name in ("open_pipeline", "build_training_model"):
        monkeypatch.delattr(prepare_module, name)
    values = [part for a in arguments if "=" in a for part in ("--set", a)]
    paths = [a for a in arguments if "=" not in a]
    code, out, err = zoo_command("train", "digits_mlp", *values, *paths)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_one_process_alone_needs_no_directory(monkeypatch):
    """A recipe for one device ignores clusters, and a cluster of one process is none."""
    monkeypatch.setenv("TF_CONFIG", TWO["TF_CONFIG"])
    check_run_path(recipes["digits_mlp"].override(strategy="one"), None)
    with pytest.raises(BadOption):
        check_run_path(recipes["digits_mlp"].override(strategy="auto"), None)
    monkeypatch.setenv("TF_CONFIG", tf_config(worker=["a:1"])["TF_CONFIG"])
    check_run_path(recipes["digits_mlp"].override(strategy="auto"), None)


def test_precision_is_what_the_device_is_fast_in():
    """A requested precision stays; the default is bfloat16 where the hardware has it."""
    assert choose_precision("float32", [], tpu=True) == "float32"
    assert choose_precision("auto", [], tpu=True) == "mixed_bfloat16"
    assert choose_precision("auto", []) == ("mixed_bfloat16" if has_bfloat16() else "float32")
