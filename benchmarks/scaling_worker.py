"""One worker of `benchmarks/scaling.py`: `python benchmarks/scaling_worker.py WORKER ADDRESS,… MEGABITS,… PLAN`.

PLAN is JSON: "bytes", sizes of tensors that are summed over all workers, and "step", (model, pixels, batch) of a model
that all train. Everything is measured at each rate in turn. The first worker requests a rate with a line of JSON on
standard output, waits for a line on standard input, and then prints a line with its measurements.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

TIMES = 3  # repetitions, for the median
SECONDS = 4.0  # of measured steps
CLASSES = 10
PORT = 23_456


def connect(worker: int, addresses: list[str]) -> Any:
    """Return the strategy of all workers, with a ring all-reduce over gRPC."""
    import tensorflow as tf

    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": [f"{a}:{PORT}" for a in addresses]}),
        task_type="worker",
        task_id=worker,
        rpc_layer="grpc",
    )
    ring = tf.distribute.experimental.CommunicationImplementation.RING
    return tf.distribute.MultiWorkerMirroredStrategy(
        resolver, tf.distribute.experimental.CommunicationOptions(implementation=ring)
    )


def adder(strategy: Any, sizes: list[int]) -> Callable[[], Any]:
    """Return a function that sums float32 tensors of so many bytes over all workers."""
    import tensorflow as tf

    values = [tf.ones([max(1, size // 4)]) for size in sizes]

    def replica() -> Any:
        found = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)
        # One number of each tensor: nothing is optimized away, and nothing large is copied.
        return tf.add_n([value[0] for value in found])

    return tf.function(lambda: strategy.run(replica), autograph=False)


def steps(strategy: Any, model: str, size: int, batch: int) -> tuple[list[Callable[[], Any]], int]:
    """Return a step of this worker alone, one with an all-reduce of gradients, and the bytes of the gradients."""
    import numpy as np
    import tensorflow as tf

    import zoo

    with strategy.scope():
        keras_model = zoo.get(model, input_shape=(size, size, 3), classes=CLASSES)
    x = tf.constant(np.random.default_rng(0).standard_normal((batch, size, size, 3)), tf.float32)
    y = tf.zeros([batch], tf.int32)

    def step(together: bool) -> Any:
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, keras_model(x, training=False))
        gradients = tape.gradient(losses, [v.value for v in keras_model.trainable_variables])
        if together:
            gradients = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        return tf.add_n([tf.reduce_sum(g) for g in gradients])

    calls = [
        tf.function(lambda together=together: strategy.run(step, args=(together,)), autograph=False)
        for together in (False, True)
    ]
    return calls, sum(4 * int(v.value.shape.num_elements()) for v in keras_model.trainable_variables)


def seconds(call: Callable[[], Any], times: int) -> float:
    """Return the median time of a call that all workers make together."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        call().numpy()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def measure(calls: dict[str, Any]) -> dict[str, Any]:
    """Return the seconds of each call at the present rate."""
    calls["barrier"]().numpy()
    found: dict[str, Any] = {"latency": seconds(calls["barrier"], 10 * TIMES)}
    found["all_reduce"] = [seconds(call, TIMES) for call in calls["all_reduce"]]
    # All workers take the same number of steps; the slowest decides.
    alone, together = calls["steps"]
    rough = max(seconds(alone, 2), seconds(together, 1), 1e-3)
    count = int(max(2, min(50, calls["agree"](SECONDS / rough))))
    calls["barrier"]().numpy()
    found["alone"] = seconds(alone, count)
    calls["barrier"]().numpy()
    found["together"] = seconds(together, count)
    return found


def main(worker: int, addresses: list[str], rates: list[float], plan: dict[str, Any]) -> None:
    """Measure at each rate."""
    os.environ.pop("TF_CONFIG", None)
    strategy = connect(worker, addresses)
    import tensorflow as tf

    def agree(value: float) -> float:
        """Return the mean of a number over all workers."""
        total = strategy.run(
            lambda: tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.constant(value))
        )
        return float(total.numpy()) / len(addresses)

    both, size = steps(strategy, *plan["step"])
    calls = {
        "barrier": adder(strategy, [4]),
        "all_reduce": [adder(strategy, sizes) for sizes in plan["bytes"]],
        "steps": both,
        "agree": agree,
    }
    calls["barrier"]().numpy()
    # Trace and connect before the rate is limited.
    for call in (*calls["all_reduce"], *calls["steps"]):
        call().numpy()
    for rate in rates:
        calls["barrier"]().numpy()
        if worker == 0:
            print(json.dumps({"rate": rate}), flush=True)
            sys.stdin.readline()
        found = {"size": size, **measure(calls)}
        if worker == 0:
            print(json.dumps({"found": found, "rate": rate}), flush=True)
    calls["barrier"]().numpy()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2].split(","), list(map(float, sys.argv[3].split(","))), json.loads(sys.argv[4]))
