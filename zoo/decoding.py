"""Writing a sequence token by token: a network in two parts, the encoder's memory and one step of the decoder.

What attention needs of earlier steps, keys and values, is kept in a cache, so that a step costs what one token costs.
Beam search as in Sutskever et al. 2014, arXiv:1409.3215, with the length penalty of Wu et al. 2016, arXiv:1609.08144.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable
from typing import Any

from zoo.common import compat
from zoo.common.errors import BadOption
from zoo.common.lazy import keras, np, tf
from zoo.common.types import fit_type
from zoo.layers.lazy import sequence
from zoo.specs.text import END, PADDING, START

# The log-probability of what cannot be.
NEVER = float("-inf")


@dataclasses.dataclass(frozen=True)
class Parts:
    """A network that writes a sequence, taken apart; the layers are those of the whole.

    Args:
        encoder: from {"source": int32 (n, S)} to {"memory": float32 (n, 2 * blocks, heads, S, d)}, the keys and the
            values of each block's attention to the source.
        decoder: from {"token": int32 (n,), "position": int32 (n,), "source", "memory", "cache": float32 (n, 2 * blocks,
            heads, T, d)} to {"logits": float32 (n, vocabulary), "cache"}.
        length: T, the most tokens that it writes.
        cache_shape: (2 * blocks, heads, T, d); a cache starts as zeros.
    """

    encoder: Any
    decoder: Any
    length: int
    cache_shape: tuple[int, ...]


def split(model: Any) -> Parts:
    """Take a network that writes a sequence apart, also one loaded from a file; raises BadOption for others."""
    inputs, logits = _ends(model)
    kept = [tensor for layer in _layers(model, sequence.Memory) for tensor in layer.output]
    cached = [tensor for layer in _layers(model, sequence.Cache) for tensor in layer.output]
    memory = sequence.Stack(dtype="float32", name="memory")(kept)
    encoder = keras.Model({"source": inputs["source"]}, {"memory": memory}, name=f"{model.name}_encoder")
    step = _step(model, inputs, logits, kept, cached)
    cache_shape = (len(cached), *cached[0].shape[1:])
    decoder = _decoder(step, inputs["source"].shape[1:], memory.shape[1:], cache_shape, f"{model.name}_decoder")
    return Parts(encoder, decoder, inputs["target"].shape[1], cache_shape)


def _ends(model: Any) -> tuple[dict[str, Any], Any]:
    """Return the inputs by name and the logits, before what may activate them."""
    inputs = {tensor.name: tensor for tensor in getattr(model, "inputs", None) or ()}
    logits = model.outputs[0] if set(inputs) == {"source", "target"} else None
    if isinstance(_maker(logits), keras.layers.Activation):
        logits = _maker(logits).input
    if not isinstance(_maker(logits), sequence.TokenEmbedding):
        raise BadOption(
            "This needs a network that writes a sequence, with its top. "
            f"Received: model=<{getattr(model, 'name', model)}>. Use one whose zoo.spec(name).task is 'generate'."
        )
    return inputs, logits


def _maker(tensor: Any) -> Any:
    """Return the layer that a tensor of a network comes from."""
    return None if tensor is None else compat.producer(tensor)


def _layers(model: Any, kind: type) -> list[Any]:
    return [layer for layer in model.layers if isinstance(layer, kind)]


def _step(model: Any, inputs: dict[str, Any], logits: Any, kept: list[Any], cached: list[Any]) -> Any:
    """Return the decoder for one token: from [source, token (n, 1), position, *memory, *cache] to [logits, *cache]."""
    memories, caches = _layers(model, sequence.Memory), _layers(model, sequence.Cache)
    position = keras.Input((), name="position", dtype="int32")
    memory = [keras.Input(tensor.shape[1:], name=f"memory{i}") for i, tensor in enumerate(kept)]
    before = [keras.Input(tensor.shape[1:], name=f"cache{i}") for i, tensor in enumerate(cached)]

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        if layer in memories:
            return memory[2 * memories.index(layer) :][:2]
        if layer in caches:
            options |= {"cached": before[2 * caches.index(layer) :][:2], "at": position}
        elif isinstance(layer, sequence.CausalBias) or _is_short(layer, arguments):
            options["at"] = position
        return layer(*arguments, **options)

    def same(layer: Any) -> Any:
        return layer

    # What the whole does not look at yet, the clone does.
    more = [position, *memory, *before]
    whole = keras.Model([inputs["source"], inputs["target"], *more], [logits, *cached])
    token = keras.Input((1,), name="token", dtype="int32")
    tensors = [inputs["source"], token, *more]
    return keras.models.clone_model(whole, input_tensors=tensors, clone_function=same, call_function=call)


def _is_short(layer: Any, arguments: tuple[Any, ...]) -> bool:
    """Tell whether positions are to be added to one step of a sequence rather than to the whole."""
    return isinstance(layer, sequence.Positions) and arguments[0].shape[1] < layer.length


def _decoder(step: Any, source: tuple[int, ...], memory: tuple[int, ...], cache: tuple[int, ...], name: str) -> Any:
    """Return the step with all of the memory in one tensor, and all of the cache in another."""
    inputs = {
        "token": keras.Input((), name="token", dtype="int32"),
        "position": keras.Input((), name="position", dtype="int32"),
        "source": keras.Input(source, name="source", dtype="int32"),
        "memory": keras.Input(memory, name="memory"),
        "cache": keras.Input(cache, name="cache"),
    }
    parts = [
        sequence.TakeToken(i, dtype="float32", name=f"take_{key}{i}")(inputs[key])
        for key, (count, *_) in (("memory", memory), ("cache", cache))
        for i in range(count)
    ]
    token = sequence.Stack(name="tokens")([inputs["token"]])
    logits, *cached = step([inputs["source"], token, inputs["position"], *parts])
    outputs = {
        "logits": sequence.TakeToken(dtype="float32", name="logits")(logits),
        "cache": sequence.Stack(dtype="float32", name="next_cache")(cached),
    }
    return keras.Model(inputs, outputs, name=name)


def generate(model: Any, source: Any, beams: int, penalty: float) -> Any:
    """Write sequences; see `zoo.generate`."""
    beams, penalty = fit_type(beams, int, "beams"), fit_type(penalty, float, "penalty")
    if beams < 1 or not 0 <= penalty < float("inf"):
        raise BadOption(f"beams must be at least 1 and penalty at least 0. Received: beams={beams}, penalty={penalty}")
    if model not in _writers:
        _writers[model] = (split(model), {})
    parts, compiled = _writers[model]
    if (beams, penalty) not in compiled:
        compiled[beams, penalty] = _writer(parts, beams, penalty)
    return keras.ops.convert_to_numpy(compiled[beams, penalty](_checked(parts, source)))


# The parts of each network that has written, and what they were compiled to by its options.
_writers: weakref.WeakKeyDictionary[Any, tuple[Parts, dict[Any, Callable[[Any], Any]]]] = weakref.WeakKeyDictionary()


def _writer(parts: Parts, beams: int, penalty: float) -> Callable[[Any], Any]:
    """Return what writes sequences (n, T) for sources (n, S), as one graph where TensorFlow runs it."""

    def write(source: Any) -> Any:
        return greedy(parts, source) if beams == 1 else beam(parts, source, beams, penalty)[0]

    if keras.backend.backend() != "tensorflow":
        return write
    return tf.function(write, input_signature=[tf.TensorSpec(parts.encoder.inputs[0].shape, "int32")], autograph=False)


def _checked(parts: Parts, source: Any) -> Any:
    """Return the sources as a tensor, or raise BadOption."""
    ids, length = np.asarray(source), parts.encoder.inputs[0].shape[1]
    vocabulary = parts.decoder.output["logits"].shape[-1]
    if ids.shape[1:] != (length,) or ids.dtype.kind not in "iu":
        raise BadOption(
            f"source must be token ids (n, {length}), padded with {PADDING} at the end. "
            f"Received: {ids.dtype} {ids.shape}"
        )
    if ids.size and not (ids.min() >= 0 and ids.max() < vocabulary):
        raise BadOption(f"source must be ids from 0 to {vocabulary - 1}. Received: {ids.min()} to {ids.max()}")
    return keras.ops.convert_to_tensor(ids.astype("int32"))


def greedy(parts: Parts, source: Any) -> Any:
    """Write the likeliest next token, step by step.

    Args:
        parts: the network.
        source: tokens (n, S), int32.

    Returns:
        Tokens (n, T), int32: what follows `START`, `END` included, then `PADDING`.
    """
    ops = keras.ops
    memory = parts.encoder({"source": source})["memory"]
    token = ops.zeros_like(source[:, 0]) + START

    def unfinished(state: dict[str, Any]) -> Any:
        return ops.logical_and(state["i"] < parts.length, ops.logical_not(ops.all(state["done"])))

    def write(state: dict[str, Any]) -> dict[str, Any]:
        i, done = state["i"], state["done"]
        logits, cache = _next(parts, state["token"], i, source, memory, state["cache"])
        token = ops.where(done, PADDING, ops.cast(ops.argmax(logits, axis=-1), "int32"))
        done = ops.logical_or(done, token == END)
        return {"i": i + 1, "token": token, "done": done, "cache": cache, "written": _put(state["written"], i, token)}

    start = {
        "i": ops.convert_to_tensor(0, "int32"),
        "token": token,
        "done": token == END,
        "cache": _empty(parts, token),
        "written": _blank(parts, token),
    }
    return ops.while_loop(unfinished, write, start)["written"]


def _next(parts: Parts, token: Any, i: Any, source: Any, memory: Any, cache: Any) -> tuple[Any, Any]:
    """Return the logits (n, vocabulary) after a token (n,) at place i, and the cache with it."""
    position = keras.ops.zeros_like(token) + i
    inputs = {"token": token, "position": position, "source": source, "memory": memory, "cache": cache}
    outputs = parts.decoder(inputs)
    return outputs["logits"], outputs["cache"]


def _empty(parts: Parts, token: Any) -> Any:
    """Return a cache (n, ...) of nothing for tokens (n,)."""
    return keras.ops.zeros((keras.ops.shape(token)[0], *parts.cache_shape), "float32")


def _blank(parts: Parts, token: Any) -> Any:
    """Return a sequence (n, T) of nothing for tokens (n,)."""
    return keras.ops.zeros((keras.ops.shape(token)[0], parts.length), "int32") + PADDING


def _put(written: Any, i: Any, token: Any) -> Any:
    """Return sequences (..., T) with tokens (...) at place i."""
    places = keras.ops.arange(written.shape[-1], dtype="int32")
    return keras.ops.where(places == i, keras.ops.expand_dims(token, -1), written)


def beam(parts: Parts, source: Any, beams: int = 4, penalty: float = 0.6) -> tuple[Any, Any]:
    """Search for the sequence of the highest score, keeping the best few beginnings at each step.

    The score is the log-probability divided by ((5 + length) / 6) ** penalty (Wu et al. 2016, equation 14), where
    `END` counts. A beginning that ends leaves the search, which goes on while another one can still score higher.

    Args:
        parts: the network.
        source: tokens (n, S), int32.
        beams: how many beginnings to keep; 1 is the greedy search.
        penalty: 0 for none, which prefers short sequences.

    Returns:
        Tokens (n, T) as of `greedy`, and their scores (n,), float32.
    """
    repeated = keras.ops.repeat(source, beams, axis=0)
    memory = keras.ops.repeat(parts.encoder({"source": source})["memory"], beams, axis=0)
    search = _Search(parts, repeated, memory, beams, penalty)
    return search.best(keras.ops.while_loop(search.unfinished, search.step, search.start(source[:, 0])))


@dataclasses.dataclass(frozen=True)
class _Search:
    """Beam search. Its state is a dictionary.

    Args:
        parts: the network.
        source: tokens (n * beams, S), those of an example one after the other; so it is with all that goes with them.
        memory: the encoder's memory of them.
        beams: beginnings that are kept of each example.
        penalty: exponent of the length.
    """

    parts: Parts
    source: Any
    memory: Any
    beams: int
    penalty: float

    def start(self, like: Any) -> dict[str, Any]:
        """Return the state before the first token, for examples like (n,): one beginning, which is empty."""
        token = self.source[:, 0] * 0 + START
        others = [NEVER] * (self.beams - 1)
        nothing = keras.ops.cast(keras.ops.expand_dims(like, 1) * 0, "float32")
        return {
            "i": keras.ops.convert_to_tensor(0, "int32"),
            "token": token,  # (n * beams,)
            "cache": _empty(self.parts, token),
            "alive": nothing + keras.ops.convert_to_tensor([0.0, *others], "float32"),  # log-probabilities (n, beams)
            "written": self._by_example(_blank(self.parts, token)),  # (n, beams, T)
            "score": nothing[:, 0] + NEVER,  # of the best that has ended, (n,)
            "ended": _blank(self.parts, like),  # (n, T)
        }

    def unfinished(self, state: dict[str, Any]) -> Any:
        """Tell whether a beginning can still score higher than what has ended; it only gets less likely."""
        most = keras.ops.max(state["alive"], axis=-1) / self._divisor(self.parts.length)
        return keras.ops.logical_and(state["i"] < self.parts.length, keras.ops.any(most > state["score"]))

    def step(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the state with one more token."""
        ops, i = keras.ops, state["i"]
        logits, cache = _next(self.parts, state["token"], i, self.source, self.memory, state["cache"])
        parent, token, alive = self._likeliest(logits, state["alive"])
        written = _put(_chosen(state["written"], parent), i, token)
        ends = token == END
        score, ended = self._better(state, ops.where(ends, alive, NEVER) / self._divisor(i + 1), written)
        row = ops.expand_dims(ops.arange(ops.shape(parent)[0], dtype="int32"), 1)
        return {
            "i": i + 1,
            "token": ops.reshape(token, (-1,)),
            "cache": ops.take(cache, ops.reshape(row * self.beams + parent, (-1,)), axis=0),
            "alive": ops.where(ends, NEVER, alive),
            "written": written,
            "score": score,
            "ended": ended,
        }

    def best(self, state: dict[str, Any]) -> tuple[Any, Any]:
        """Return the best sequence (n, T) and its score (n,), of those that have ended and those that are full."""
        score, ended = self._better(state, state["alive"] / self._divisor(self.parts.length), state["written"])
        return ended, score

    def _likeliest(self, logits: Any, alive: Any) -> tuple[Any, Any, Any]:
        """Return the beginnings to go on with, the tokens that go on and log-probabilities, each (n, beams)."""
        ops, size = keras.ops, logits.shape[-1]
        following = ops.expand_dims(alive, -1) + self._by_example(ops.log_softmax(logits))
        alive, index = ops.top_k(ops.reshape(following, (-1, self.beams * size)), self.beams)
        index = ops.cast(index, "int32")
        return index // size, index % size, alive

    def _better(self, state: dict[str, Any], scores: Any, written: Any) -> tuple[Any, Any]:
        """Return the best score (n,) and its sequence (n, T), of those in the state and (n, beams) more."""
        best = keras.ops.max(scores, axis=-1)
        which = keras.ops.expand_dims(keras.ops.cast(keras.ops.argmax(scores, axis=-1), "int32"), 1)
        higher = best > state["score"]
        ended = keras.ops.where(keras.ops.expand_dims(higher, 1), _chosen(written, which)[:, 0], state["ended"])
        return keras.ops.where(higher, best, state["score"]), ended

    def _divisor(self, length: Any) -> Any:
        """Return what log-probabilities of this length are divided by."""
        return ((5.0 + keras.ops.cast(length, "float32")) / 6.0) ** self.penalty

    def _by_example(self, x: Any) -> Any:
        """Return (n, beams, ...) of (n * beams, ...)."""
        return keras.ops.reshape(x, (-1, self.beams, *x.shape[1:]))


def _chosen(sequences: Any, which: Any) -> Any:
    """Return those sequences of (n, beams, T) that `which` (n, k) numbers."""
    return keras.ops.take_along_axis(sequences, keras.ops.expand_dims(which, -1), axis=1)
