"""What a built network costs: multiply-adds, memory, its stages and its feature maps."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from zoo.common import compat

BYTES = 4  # of one float32
MIB = 2**20


def _convolution(call: Any) -> int:
    """Each output value takes one multiply-add for each weight of its filter, of its own group only."""
    return _outputs(call) * math.prod(call.operation.kernel.shape[:-1])


def _depthwise(call: Any) -> int:
    return _outputs(call) * math.prod(call.operation.kernel.shape[:-2])


def _separable(call: Any) -> int:
    layer = call.operation
    weights = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
    return _outputs(call) // layer.filters * weights


def _transposed(call: Any) -> int:
    """Each input value goes into one output value for each weight that it meets."""
    return sum(map(_values, call.input_tensors)) * math.prod(call.operation.kernel.shape[:-1])


def _dense(call: Any) -> int:
    return _outputs(call) * call.operation.kernel.shape[0]


def _einsum_dense(call: Any) -> int:
    """Each output value sums over the axes of the kernel that the output does not have."""
    operands, result = call.operation.equation.split("->")
    axes = zip(operands.split(",")[1].strip(), call.operation.kernel.shape, strict=True)
    return _outputs(call) * math.prod(size for axis, size in axes if axis not in result)


def _attention(call: Any) -> int:
    """Each score sums over a query's values, each value that comes out over the weights of all keys."""
    return _outputs(call) * call.input_tensors[0].shape[-1]


def _token_embedding(call: Any) -> int:
    """Looking vectors up takes none; the way back, from vectors to logits, is a dense layer's."""
    return _outputs(call) * call.operation.width if call.arguments.kwargs.get("reverse") else 0


# From the type of a layer, or one that it derives from, to what counts the multiply-adds of a call of it. What is not
# here, such as normalization, activation and pooling, counts as nothing, as in the published figures.
MULTIPLY_ADDS: dict[str, Callable[[Any], int]] = {
    **{f"Conv{n}D": _convolution for n in (1, 2, 3)},
    **{f"Conv{n}DTranspose": _transposed for n in (1, 2, 3)},
    **{f"DepthwiseConv{n}D": _depthwise for n in (1, 2)},
    **{f"SeparableConv{n}D": _separable for n in (1, 2)},
    "Dense": _dense,
    "EinsumDense": _einsum_dense,
    "AttentionWeights": _attention,
    "AttentionValues": _attention,
    "TokenEmbedding": _token_embedding,
}


def summarize(network: Any, maps: Sequence[Any]) -> dict[str, Any]:
    """Return what a network costs for one input in float32, JSON-safe.

    Args:
        network: a functional keras.Model; sizes of its input that are free count as 1.
        maps: the feature maps (n, h, w, c) that its builder marked, from the finest to the coarsest; those laid out
            beside the network, from tokens in it, stand for these.

    Returns:
        gmacs: multiply-adds of convolutions and dense layers, in billions.
        memory: MiB of all weights ("weights_mib"), of the tensors that are alive at once at most when each layer writes
            to a place of its own and tensors are freed after their last use ("inference_mib"), and of the input and
            the outputs of all layers, which training keeps ("training_mib").
        features: for each map its level, the layer that made it, its stride and its channels.
        stages: for each its name, layers by type, output shape, trainable parameters and gmacs. A stage ends with a
            marked map, the last one with the network; without maps, layers whose names start alike are a stage.
    """
    calls = _calls(network)
    marked = _marked(maps, calls)
    return {
        "gmacs": _rounded(sum(map(_multiply_adds, calls)) / 1e9),
        "memory": {
            "weights_mib": _mib(sum(math.prod(w.shape) for w in network.weights)),
            "inference_mib": _mib(_peak(calls, network.outputs)),
            "training_mib": _mib(sum(map(_outputs, calls))),
        },
        "features": _features(network, maps, marked, calls),
        "stages": _described(_stages(calls, marked)),
    }


def _calls(network: Any) -> list[Any]:
    """Return the calls of layers in the order in which Keras makes them; a shared layer is called more than once."""
    return compat.nodes(network)


def _values(tensor: Any) -> int:
    """Return how many values a tensor holds for one input."""
    return math.prod(size or 1 for size in tensor.shape[1:])


def _outputs(call: Any) -> int:
    return sum(map(_values, call.outputs))


def _multiply_adds(call: Any) -> int:
    kinds = [kind.__name__ for kind in type(call.operation).__mro__ if kind.__name__ in MULTIPLY_ADDS]
    return MULTIPLY_ADDS[kinds[0]](call) if kinds else 0


def _peak(calls: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Return how many values are alive at once at most."""
    last = {id(t): i for i, call in enumerate(calls) for t in call.input_tensors}
    last |= {id(t): len(calls) for t in outputs}
    alive: dict[int, int] = {}
    peak = 0
    for i, call in enumerate(calls):
        alive |= {id(t): _values(t) for t in call.outputs}
        peak = max(peak, sum(alive.values()))
        alive = {key: size for key, size in alive.items() if last.get(key, i) > i}
    return peak


def _marked(maps: Sequence[Any], calls: Sequence[Any]) -> list[Any]:
    """Return the tensors of the network that the maps are or are laid out from."""
    made = {id(t) for call in calls for t in call.outputs}
    return [x if id(x) in made else compat.producer(x).input for x in maps]


def _features(network: Any, maps: Sequence[Any], marked: Sequence[Any], calls: Sequence[Any]) -> list[dict[str, Any]]:
    makers = {id(t): call.operation.name for call in calls for t in call.outputs}
    return [
        {
            "level": level,
            "layer": makers[id(y)],
            "stride": 2 ** round(math.log2(network.inputs[0].shape[1] / x.shape[1])),
            "channels": x.shape[-1],
        }
        for level, (x, y) in enumerate(zip(maps, marked, strict=True))
    ]


def _stages(calls: Sequence[Any], maps: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """Return the stages by name, as the calls they consist of; the input belongs to none."""
    calls = [call for call in calls if not call.is_input]
    if not maps:
        return _by_name(calls)
    parts = [_leading_to(x, calls) for x in maps]
    parts.append(calls)
    seen: set[int] = set()
    stages = []
    for part in parts:
        stages.append([call for call in part if id(call) not in seen])
        seen |= {id(call) for call in part}
    return [*zip(_names(stages[:-1]), stages[:-1], strict=True), ("head", stages[-1])]


def _leading_to(x: Any, calls: Sequence[Any]) -> list[Any]:
    """Return the calls that a tensor depends on, so that a branch beside it is none of them."""
    wanted, found = {id(x)}, []
    for call in reversed(calls):
        if wanted & set(map(id, call.outputs)):
            wanted |= set(map(id, call.input_tensors))
            found.append(call)
    return found[::-1]


def _by_name(calls: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """Return stages of layers whose names start alike; one without weights joins the one before it.

    The head is what the end has in common, even if its layer was called before, and layers that are named so.
    """
    own = {_start(call) for call in calls if call.operation.weights}
    name = next((start for start in map(_start, calls) if start in own), "")
    names = [name := _start(call) if _start(call) in own else name for call in calls]
    body = len(names)
    while body and names[body - 1] == names[-1]:
        body -= 1
    stages: dict[str, list[Any]] = {}
    for name, call in zip([*names[:body], *["head"] * (len(names) - body)], calls, strict=True):
        stages.setdefault(name, []).append(call)
    head = stages.pop("head")
    return [*stages.items(), ("head", head)]


def _start(call: Any) -> str:
    """Return how the name of a layer starts: stage1 of stage1_block2_conv1."""
    return call.operation.name.partition("_")[0]


def _names(stages: Sequence[Sequence[Any]]) -> list[str]:
    """Return a name for each stage: from its layers, else from the one that ends it, else its number."""
    names: list[str] = []
    for level, stage in enumerate(stages):
        candidates = [_name(stage), "_".join(stage[-1].operation.name.split("_")[:2])] if stage else []
        free = [name for name in candidates if name not in names and len(name) <= 16]
        names.append(free[0] if free else f"level {level}")
    return names


def _name(stage: Sequence[Any]) -> str:
    """Return how most layers of a stage start, or the first and the last of those that many do: stage4-5."""
    starts = Counter(_start(call) for call in stage if call.operation.weights) or Counter(map(_start, stage))
    many = [start for start, count in starts.items() if 2 * count >= max(starts.values())]
    if len(many) == 1:
        return many[0]
    first, last = (re.fullmatch(r"(\D*)(.*)", start) for start in (many[0], many[-1]))
    return f"{first[0]}-{last[2] if first[1] == last[1] else last[0]}"


def _described(stages: Sequence[tuple[str, Sequence[Any]]]) -> list[dict[str, Any]]:
    """Return what is told of each stage; a layer that several share has its parameters in the first."""
    counted: set[int] = set()
    found = []
    for name, calls in stages:
        layers = {id(call.operation): call.operation for call in calls if id(call.operation) not in counted}
        found.append(_stage(name, calls, sum(map(_parameters, layers.values()))))
        counted |= layers.keys()
    return found


def _parameters(layer: Any) -> int:
    return sum(math.prod(w.shape) for w in layer.trainable_weights)


def _stage(name: str, calls: Sequence[Any], params: int) -> dict[str, Any]:
    return {
        "name": name,
        "layers": dict(Counter(type(call.operation).__name__ for call in calls)),
        "output": list(calls[-1].outputs[0].shape[1:]),
        "params": params,
        "gmacs": _rounded(sum(map(_multiply_adds, calls)) / 1e9),
    }


def _mib(values: int) -> float:
    return _rounded(values * BYTES / MIB)


def _rounded(value: float) -> float:
    """Return four significant digits, which are more than anyone compares."""
    return float(f"{value:.4g}")
