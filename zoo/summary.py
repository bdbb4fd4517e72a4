"""Summary of a built model: multiply-adds, memory, stages and feature maps."""

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
    """Return one multiply-add per output value and weight of its filter, within its group."""
    return _outputs(call) * math.prod(call.operation.kernel.shape[:-1])


def _depthwise(call: Any) -> int:
    return _outputs(call) * math.prod(call.operation.kernel.shape[:-2])


def _separable(call: Any) -> int:
    layer = call.operation
    weights = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
    return _outputs(call) // layer.filters * weights


def _transposed(call: Any) -> int:
    """Return one multiply-add per input value and weight that it is multiplied with."""
    return sum(map(_values, call.input_tensors)) * math.prod(call.operation.kernel.shape[:-1])


def _dense(call: Any) -> int:
    return _outputs(call) * call.operation.kernel.shape[0]


def _einsum_dense(call: Any) -> int:
    """Return the products that each output value sums, over the kernel axes that the output lacks."""
    operands, result = call.operation.equation.split("->")
    axes = zip(operands.split(",")[1].strip(), call.operation.kernel.shape, strict=True)
    return _outputs(call) * math.prod(size for axis, size in axes if axis not in result)


def _attention(call: Any) -> int:
    """Return the products of the scores (over the width of a head) or of the values (over all keys)."""
    return _outputs(call) * call.input_tensors[0].shape[-1]


def _token_embedding(call: Any) -> int:
    """Return the multiply-adds of the tied logits; an embedding lookup has none."""
    return _outputs(call) * call.operation.width if call.arguments.kwargs.get("reverse") else 0


# Counters of the multiply-adds of a call, by the layer's type or one of its base classes. Other layers, such as
# normalization, activation and pooling, count as 0, as in published numbers.
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


def summarize(model: Any, maps: Sequence[Any]) -> dict[str, Any]:
    """Return the cost and structure of a model for one float32 input, JSON-safe.

    Args:
        model: a functional keras.Model; dynamic input sizes count as 1.
        maps: the feature maps (n, h, w, c) that the builder marked, from the finest to the coarsest; a map reshaped
            from tokens outside the model counts as these tokens.

    Returns:
        gmacs: multiply-adds of convolutions and dense layers, in billions.
        memory: MiB of all weights ("weights_mib"); of the live tensors at their peak in inference, if no layer works in
            place and a tensor is freed after its last use ("inference_mib"); and of the input and all layer outputs,
            which training stores ("training_mib").
        features: level, output layer, stride and channels of each map.
        stages: name, layers by type, output shape, trainable parameters and gmacs of each stage. A stage ends at a
            marked map, the last one at the output; without maps, a stage is layers with the same name prefix.
    """
    calls = compat.nodes(model)
    marked = _marked(maps, calls)
    return {
        "gmacs": _rounded(sum(map(_multiply_adds, calls)) / 1e9),
        "memory": {
            "weights_mib": _mib(sum(math.prod(w.shape) for w in model.weights)),
            "inference_mib": _mib(_peak(calls, model.outputs)),
            "training_mib": _mib(sum(map(_outputs, calls))),
        },
        "features": _features(model, maps, marked, calls),
        "stages": _described(_stages(calls, marked)),
    }


def _values(tensor: Any) -> int:
    """Return the number of values of a tensor for one input."""
    return math.prod(size or 1 for size in tensor.shape[1:])


def _outputs(call: Any) -> int:
    return sum(map(_values, call.outputs))


def _multiply_adds(call: Any) -> int:
    kinds = [kind.__name__ for kind in type(call.operation).__mro__ if kind.__name__ in MULTIPLY_ADDS]
    return MULTIPLY_ADDS[kinds[0]](call) if kinds else 0


def _peak(calls: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Return the peak number of live values."""
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
    """Return the tensors inside the model that are the maps or that the maps are reshaped from."""
    inside = {id(t) for call in calls for t in call.outputs}
    return [x if id(x) in inside else compat.producer(x).input for x in maps]


def _features(model: Any, maps: Sequence[Any], marked: Sequence[Any], calls: Sequence[Any]) -> list[dict[str, Any]]:
    layers = {id(t): call.operation.name for call in calls for t in call.outputs}
    return [
        {
            "level": level,
            "layer": layers[id(y)],
            "stride": 2 ** round(math.log2(model.inputs[0].shape[1] / x.shape[1])),
            "channels": x.shape[-1],
        }
        for level, (x, y) in enumerate(zip(maps, marked, strict=True))
    ]


def _stages(calls: Sequence[Any], maps: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """Return the stages by name, as lists of calls; the input belongs to no stage."""
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
    """Return the calls that a tensor depends on, without parallel branches."""
    needed, ancestors = {id(x)}, []
    for call in reversed(calls):
        if needed & set(map(id, call.outputs)):
            needed |= set(map(id, call.input_tensors))
            ancestors.append(call)
    return ancestors[::-1]


def _by_name(calls: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """Return stages of layers with the same name prefix; a layer without weights joins the stage before it.

    The head is the last stage and all layers named "head", also if its layer is called earlier.
    """
    weighted = {_start(call) for call in calls if call.operation.weights}
    name = next((start for start in map(_start, calls) if start in weighted), "")
    names = [name := _start(call) if _start(call) in weighted else name for call in calls]
    body = len(names)
    while body and names[body - 1] == names[-1]:
        body -= 1
    stages: dict[str, list[Any]] = {}
    for name, call in zip([*names[:body], *["head"] * (len(names) - body)], calls, strict=True):
        stages.setdefault(name, []).append(call)
    head = stages.pop("head")
    return [*stages.items(), ("head", head)]


def _start(call: Any) -> str:
    """Return the prefix of a layer's name, such as stage1 of stage1_block2_conv1."""
    return call.operation.name.partition("_")[0]


def _names(stages: Sequence[Sequence[Any]]) -> list[str]:
    """Return a name for each stage: from its layers, else from its last layer, else its number."""
    names: list[str] = []
    for level, stage in enumerate(stages):
        candidates = [_name(stage), "_".join(stage[-1].operation.name.split("_")[:2])] if stage else []
        free = [name for name in candidates if name not in names and len(name) <= 16]
        names.append(free[0] if free else f"level {level}")
    return names


def _name(stage: Sequence[Any]) -> str:
    """Return the most frequent prefix of a stage's layers; of several, the first and the last, such as stage4-5."""
    starts = Counter(_start(call) for call in stage if call.operation.weights) or Counter(map(_start, stage))
    many = [start for start, count in starts.items() if 2 * count >= max(starts.values())]
    if len(many) == 1:
        return many[0]
    first, last = (re.fullmatch(r"(\D*)(.*)", start) for start in (many[0], many[-1]))
    return f"{first[0]}-{last[2] if first[1] == last[1] else last[0]}"


def _described(stages: Sequence[tuple[str, Sequence[Any]]]) -> list[dict[str, Any]]:
    """Return the description of each stage; a shared layer's parameters count in its first stage."""
    counted: set[int] = set()
    described = []
    for name, calls in stages:
        layers = {id(call.operation): call.operation for call in calls if id(call.operation) not in counted}
        described.append(_stage(name, calls, sum(map(_parameters, layers.values()))))
        counted |= layers.keys()
    return described


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
    """Return the value rounded to four significant digits."""
    return float(f"{value:.4g}")
