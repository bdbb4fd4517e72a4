"""Sequence generation token by token, with an encoder and one step of the decoder.

The keys and values of earlier steps are cached, so that a step costs one token.
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

# The log-probability of an impossible event.
NEVER = float("-inf")


@dataclasses.dataclass(frozen=True)
class EncoderDecoder:
    """A sequence-to-sequence model as two models that share its layers.

    Args:
        encoder: from {"source": int32 (n, S)} to {"memory": float32 (n, 2 * blocks, heads, S, d)}, the keys and
            values of each block's attention to the source.
        decoder: from {"token": int32 (n,), "position": int32 (n,), "source", "memory", "cache": float32 (n, 2 * blocks,
            heads, T, d)} to {"logits": float32 (n, vocabulary), "cache"}.
        length: T, the maximum number of generated tokens.
        cache_shape: (2 * blocks, heads, T, d); a cache starts as zeros.
    """

    encoder: Any
    decoder: Any
    length: int
    cache_shape: tuple[int, ...]


def split_model(model: Any) -> EncoderDecoder:
    """Split a sequence-to-sequence model into encoder and decoder; raises BadOption for another model."""
    inputs, logits = _ends(model)
    source_states = [tensor for layer in _layers(model, sequence.Memory) for tensor in layer.output]
    cached = [tensor for layer in _layers(model, sequence.Cache) for tensor in layer.output]
    memory = sequence.Stack(dtype="float32", name="memory")(source_states)
    encoder = keras.Model({"source": inputs["source"]}, {"memory": memory}, name=f"{model.name}_encoder")
    step = _step(model, inputs, logits, source_states, cached)
    cache_shape = (len(cached), *cached[0].shape[1:])
    decoder = _decoder(step, inputs["source"].shape[1:], memory.shape[1:], cache_shape, f"{model.name}_decoder")
    return EncoderDecoder(encoder, decoder, inputs["target"].shape[1], cache_shape)


def _ends(model: Any) -> tuple[dict[str, Any], Any]:
    """Return the inputs by name, and the logits before an activation."""
    inputs = {tensor.name: tensor for tensor in getattr(model, "inputs", None) or ()}
    logits = model.outputs[0] if set(inputs) == {"source", "target"} else None
    if isinstance(compat.producer(logits), keras.layers.Activation):
        logits = compat.producer(logits).input
    if not isinstance(compat.producer(logits), sequence.TokenEmbedding):
        raise BadOption(
            "Expected a sequence-to-sequence model with its top. "
            f"Received: model=<{getattr(model, 'name', model)}>. Use a model with zoo.spec(name).task 'generate'."
        )
    return inputs, logits


def _layers(model: Any, kind: type) -> list[Any]:
    return [layer for layer in model.layers if isinstance(layer, kind)]


def _step(model: Any, inputs: dict[str, Any], logits: Any, source_states: list[Any], cached: list[Any]) -> Any:
    """Return the decoder for one token: from [source, token (n, 1), position, *memory, *cache] to [logits, *cache]."""
    memories, caches = _layers(model, sequence.Memory), _layers(model, sequence.Cache)
    position = keras.Input((), name="position", dtype="int32")
    memory = [keras.Input(tensor.shape[1:], name=f"memory{i}") for i, tensor in enumerate(source_states)]
    cache = [keras.Input(tensor.shape[1:], name=f"cache{i}") for i, tensor in enumerate(cached)]

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        if layer in memories:
            return memory[2 * memories.index(layer) :][:2]
        if layer in caches:
            options |= {"cached": cache[2 * caches.index(layer) :][:2], "at": position}
        elif isinstance(layer, sequence.CausalBias) or _is_short(layer, arguments):
            options["at"] = position
        return layer(*arguments, **options)

    def same(layer: Any) -> Any:
        return layer

    # The whole model ignores these inputs; the clone uses them.
    more = [position, *memory, *cache]
    whole = keras.Model([inputs["source"], inputs["target"], *more], [logits, *cached])
    token = keras.Input((1,), name="token", dtype="int32")
    tensors = [inputs["source"], token, *more]
    return keras.models.clone_model(whole, input_tensors=tensors, clone_function=same, call_function=call)


def _is_short(layer: Any, arguments: tuple[Any, ...]) -> bool:
    """Return whether a layer adds positions to one step instead of a whole sequence."""
    return isinstance(layer, sequence.Positions) and arguments[0].shape[1] < layer.length


def _decoder(step: Any, source: tuple[int, ...], memory: tuple[int, ...], cache: tuple[int, ...], name: str) -> Any:
    """Return the step with the memory in one tensor and the cache in another."""
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
    """Generate sequences; see `zoo.generate`."""
    beams, penalty = fit_type(beams, int, "beams"), fit_type(penalty, float, "penalty")
    if beams < 1 or not 0 <= penalty < float("inf"):
        raise BadOption(f"beams must be at least 1 and penalty at least 0. Received: beams={beams}, penalty={penalty}")
    if model not in _generators:
        _generators[model] = (split_model(model), {})
    parts, compiled = _generators[model]
    if (beams, penalty) not in compiled:
        compiled[beams, penalty] = _generator(parts, beams, penalty)
    return keras.ops.convert_to_numpy(compiled[beams, penalty](_checked_source(parts, source)))


# Per model: its encoder and decoder, and the compiled functions by their options.
_generators: weakref.WeakKeyDictionary[Any, tuple[EncoderDecoder, dict[Any, Callable[[Any], Any]]]] = (
    weakref.WeakKeyDictionary()
)


def _generator(parts: EncoderDecoder, beams: int, penalty: float) -> Callable[[Any], Any]:
    """Return the function from sources (n, S) to generated sequences (n, T), as one graph on TensorFlow."""

    def decode(source: Any) -> Any:
        return greedy(parts, source) if beams == 1 else beam(parts, source, beams, penalty)[0]

    if keras.backend.backend() != "tensorflow":
        return decode
    return tf.function(decode, input_signature=[tf.TensorSpec(parts.encoder.inputs[0].shape, "int32")], autograph=False)


def _checked_source(parts: EncoderDecoder, source: Any) -> Any:
    """Return the checked sources as a tensor, or raise BadOption."""
    ids, length = np.asarray(source), parts.encoder.inputs[0].shape[1]
    vocabulary = parts.decoder.output["logits"].shape[-1]
    if ids.shape[1:] != (length,) or ids.dtype.kind not in "iu":
        raise BadOption(
            f"source must be token ids (n, {length}), padded with {PADDING} at the end. "
            f"Received: source of {ids.dtype} {ids.shape}"
        )
    if ids.size and not (ids.min() >= 0 and ids.max() < vocabulary):
        raise BadOption(
            f"source must be ids from 0 to {vocabulary - 1}. Received: source from {ids.min()} to {ids.max()}"
        )
    return keras.ops.convert_to_tensor(ids.astype("int32"))


def greedy(parts: EncoderDecoder, source: Any) -> Any:
    """Decode greedily: append the most likely token, step by step.

    Args:
        parts: encoder and decoder.
        source: tokens (n, S), int32.

    Returns:
        Tokens (n, T), int32: the tokens after `START`, up to and including `END`, then `PADDING`.
    """
    ops = keras.ops
    memory = parts.encoder({"source": source})["memory"]
    token = ops.zeros_like(source[:, 0]) + START

    def is_running(state: dict[str, Any]) -> Any:
        return ops.logical_and(state["i"] < parts.length, ops.logical_not(ops.all(state["done"])))

    def step(state: dict[str, Any]) -> dict[str, Any]:
        i, done = state["i"], state["done"]
        logits, cache = _next(parts, state["token"], i, source, memory, state["cache"])
        token = ops.where(done, PADDING, ops.cast(ops.argmax(logits, axis=-1), "int32"))
        done, sequences = ops.logical_or(done, token == END), _with_token(state["sequences"], i, token)
        return {
            "i": i + 1,
            "token": token,
            "done": done,
            "cache": cache,
            "sequences": sequences,
        }

    start = {
        "i": ops.convert_to_tensor(0, "int32"),
        "token": token,
        "done": token == END,
        "cache": _empty_cache(parts, token),
        "sequences": _empty_sequences(parts, token),
    }
    return ops.while_loop(is_running, step, start)["sequences"]


def _next(parts: EncoderDecoder, token: Any, i: Any, source: Any, memory: Any, cache: Any) -> tuple[Any, Any]:
    """Return the logits (n, vocabulary) after a token (n,) at position i, and the updated cache."""
    position = keras.ops.zeros_like(token) + i
    inputs = {"token": token, "position": position, "source": source, "memory": memory, "cache": cache}
    outputs = parts.decoder(inputs)
    return outputs["logits"], outputs["cache"]


def _empty_cache(parts: EncoderDecoder, token: Any) -> Any:
    """Return an empty cache (n, ...) for tokens (n,)."""
    return keras.ops.zeros((keras.ops.shape(token)[0], *parts.cache_shape), "float32")


def _empty_sequences(parts: EncoderDecoder, token: Any) -> Any:
    """Return sequences (n, T) of padding for tokens (n,)."""
    return keras.ops.zeros((keras.ops.shape(token)[0], parts.length), "int32") + PADDING


def _with_token(sequences: Any, i: Any, token: Any) -> Any:
    """Return sequences (..., T) with tokens (...) at position i."""
    positions = keras.ops.arange(sequences.shape[-1], dtype="int32")
    return keras.ops.where(positions == i, keras.ops.expand_dims(token, -1), sequences)


def beam(parts: EncoderDecoder, source: Any, beams: int = 4, penalty: float = 0.6) -> tuple[Any, Any]:
    """Search for the sequence with the highest score by beam search.

    The score is the log-probability divided by ((5 + length) / 6) ** penalty (Wu et al. 2016, equation 14), where
    `END` counts. A beam that ends leaves the search; the search continues while another beam can still score higher.

    Args:
        parts: encoder and decoder.
        source: tokens (n, S), int32.
        beams: number of beams; 1 is greedy search.
        penalty: exponent of the length penalty; 0 prefers short sequences.

    Returns:
        Tokens (n, T) as of `greedy`, and their scores (n,), float32.
    """
    repeated = keras.ops.repeat(source, beams, axis=0)
    memory = keras.ops.repeat(parts.encoder({"source": source})["memory"], beams, axis=0)
    search = _Search(parts, repeated, memory, beams, penalty)
    return search.best(keras.ops.while_loop(search.is_running, search.step, search.start(source[:, 0])))


@dataclasses.dataclass(frozen=True)
class _Search:
    """Beam search; its state is a dictionary.

    Args:
        parts: encoder and decoder.
        source: tokens (n * beams, S); the beams of an example are adjacent.
        memory: the encoder's outputs for `source`.
        beams: number of beams per example.
        penalty: exponent of the length penalty.
    """

    parts: EncoderDecoder
    source: Any
    memory: Any
    beams: int
    penalty: float

    def start(self, like: Any) -> dict[str, Any]:
        """Return the state before the first token, for examples like (n,): one empty beam."""
        token = self.source[:, 0] * 0 + START
        others = [NEVER] * (self.beams - 1)
        zeros = keras.ops.cast(keras.ops.expand_dims(like, 1) * 0, "float32")
        return {
            "i": keras.ops.convert_to_tensor(0, "int32"),
            "token": token,  # (n * beams,)
            "cache": _empty_cache(self.parts, token),
            "alive": zeros + keras.ops.convert_to_tensor([0.0, *others], "float32"),  # log-probabilities (n, beams)
            "sequences": self._by_example(_empty_sequences(self.parts, token)),  # (n, beams, T)
            "score": zeros[:, 0] + NEVER,  # of the best ended beam, (n,)
            "ended": _empty_sequences(self.parts, like),  # (n, T)
        }

    def is_running(self, state: dict[str, Any]) -> Any:
        """Return whether a beam can still score higher than the ended ones; its probability only decreases."""
        bound = keras.ops.max(state["alive"], axis=-1) / self._divisor(self.parts.length)
        return keras.ops.logical_and(state["i"] < self.parts.length, keras.ops.any(bound > state["score"]))

    def step(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the state after one more token."""
        ops, i = keras.ops, state["i"]
        logits, cache = _next(self.parts, state["token"], i, self.source, self.memory, state["cache"])
        parent, token, alive = self._most_likely(logits, state["alive"])
        sequences = _with_token(_select(state["sequences"], parent), i, token)
        ends = token == END
        score, ended = self._better(state, ops.where(ends, alive, NEVER) / self._divisor(i + 1), sequences)
        row = ops.expand_dims(ops.arange(ops.shape(parent)[0], dtype="int32"), 1)
        return {
            "i": i + 1,
            "token": ops.reshape(token, (-1,)),
            "cache": ops.take(cache, ops.reshape(row * self.beams + parent, (-1,)), axis=0),
            "alive": ops.where(ends, NEVER, alive),
            "sequences": sequences,
            "score": score,
            "ended": ended,
        }

    def best(self, state: dict[str, Any]) -> tuple[Any, Any]:
        """Return the best sequence (n, T) and its score (n,), among ended and full-length beams."""
        score, ended = self._better(state, state["alive"] / self._divisor(self.parts.length), state["sequences"])
        return ended, score

    def _most_likely(self, logits: Any, alive: Any) -> tuple[Any, Any, Any]:
        """Return the beams to extend, their next tokens and their log-probabilities, each (n, beams)."""
        ops, size = keras.ops, logits.shape[-1]
        extended = ops.expand_dims(alive, -1) + self._by_example(ops.log_softmax(logits))
        alive, index = ops.top_k(ops.reshape(extended, (-1, self.beams * size)), self.beams)
        index = ops.cast(index, "int32")
        return index // size, index % size, alive

    def _better(self, state: dict[str, Any], scores: Any, sequences: Any) -> tuple[Any, Any]:
        """Return the best score (n,) and its sequence (n, T), among the state's and (n, beams) more."""
        best = keras.ops.max(scores, axis=-1)
        which = keras.ops.expand_dims(keras.ops.cast(keras.ops.argmax(scores, axis=-1), "int32"), 1)
        higher = best > state["score"]
        ended = keras.ops.where(keras.ops.expand_dims(higher, 1), _select(sequences, which)[:, 0], state["ended"])
        return keras.ops.where(higher, best, state["score"]), ended

    def _divisor(self, length: Any) -> Any:
        """Return the divisor of the log-probability of a sequence of this length."""
        return ((5.0 + keras.ops.cast(length, "float32")) / 6.0) ** self.penalty

    def _by_example(self, x: Any) -> Any:
        """Reshape (n * beams, ...) to (n, beams, ...)."""
        return keras.ops.reshape(x, (-1, self.beams, *x.shape[1:]))


def _select(sequences: Any, which: Any) -> Any:
    """Return the sequences (n, k, T) of (n, beams, T) at the indices `which` (n, k)."""
    return keras.ops.take_along_axis(sequences, keras.ops.expand_dims(which, -1), axis=1)
