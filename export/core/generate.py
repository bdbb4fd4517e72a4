"""A network that writes sequences in its real runtime: the encoder once, the decoder token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from export.core.format import Runtime, Tensor
from export.core.samples import in_batches
from zoo.common.errors import ParityError
from zoo.common.lazy import keras, np
from zoo.specs.text import END, PADDING, START

if TYPE_CHECKING:
    import numpy as _np

# Inputs and outputs of each part, by name.
INTERFACE = {
    "encode": (("source",), ("memory",)),
    "decode": (("token", "position", "source", "memory", "cache"), ("logits", "next_cache")),
}


class Generator(Runtime):
    """A loaded artifact in two parts, driven step by step.

    Attributes:
        parts: inputs and outputs of each part, by the names in `INTERFACE`.
    """

    parts: dict[str, tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]

    @property
    def inputs(self) -> tuple[Tensor, ...]:  # type: ignore[override]
        """The inputs of the encoder."""
        return self.parts["encode"][0]

    @property
    def outputs(self) -> tuple[Tensor, ...]:  # type: ignore[override]
        """The outputs of the decoder."""
        return self.parts["decode"][1]

    def run(self, part: str, values: dict[str, _np.ndarray]) -> dict[str, _np.ndarray]:
        """Run a part on values of its batch size; returns float32 values of its outputs."""
        raise NotImplementedError

    def tensor(self, name: str) -> Tensor:
        """Return an input of the decoder."""
        return next(tensor for tensor in self.parts["decode"][0] if tensor.name == name)

    def __call__(self, inputs: dict[str, _np.ndarray]) -> _np.ndarray:
        """Return float32 logits (n, T, vocabulary) of the real decoder, fed with the right tokens.

        Args:
            inputs: "source" (n, S) and "target" (n, T), int32; logits behind the end of every target stay zero.
        """
        return in_batches(self._logits, inputs, self.batch)

    def generate(self, source: _np.ndarray) -> _np.ndarray:
        """Return tokens int32 (n, T) of sources int32 (n, S), at each step the most likely; `PADDING` follows `END`."""
        return in_batches(self._greedy, np.asarray(source, "int32"), self.batch)

    def generate_strings(self, texts: list[str]) -> list[str] | None:
        """Return what is written for texts; None where the artifact takes no such input."""
        return None

    def step(self, inputs: dict[str, _np.ndarray]) -> None:
        """Write one sequence, or as many as the batch has."""
        self.generate(inputs["source"][: self.batch or 1])

    def _start(self, source: _np.ndarray) -> tuple[dict[str, _np.ndarray], _np.ndarray]:
        """Return what the decoder is given at every step, and an empty cache."""
        memory = self.run("encode", {"source": source})["memory"]
        return {"source": source, "memory": memory}, np.zeros((len(source), *self.tensor("cache").shape[1:]), "float32")

    def _step(self, given: dict[str, Any], cache: Any, token: Any, place: int) -> tuple[Any, Any]:
        """Return the logits (n, vocabulary) after the tokens at a place, and the cache."""
        position = np.full(len(token), place, "int32")
        found = self.run("decode", {**given, "token": token, "position": position, "cache": cache})
        return found["logits"], found["next_cache"]

    def _logits(self, inputs: dict[str, _np.ndarray]) -> _np.ndarray:
        target = np.asarray(inputs["target"], "int32")
        given, cache = self._start(np.asarray(inputs["source"], "int32"))
        used = np.flatnonzero((target != PADDING).any(axis=0))
        found = []
        for place in range(used[-1] + 1 if used.size else 1):
            logits, cache = self._step(given, cache, np.ascontiguousarray(target[:, place]), place)
            found.append(logits)
        behind = np.zeros((len(target), target.shape[1] - len(found), found[0].shape[-1]), "float32")
        return np.concatenate([np.stack(found, axis=1), behind], axis=1)

    def _greedy(self, source: _np.ndarray) -> _np.ndarray:
        given, cache = self._start(source)
        tokens = np.full((len(source), self.tensor("cache").shape[3]), PADDING, "int32")
        token = np.full(len(source), START, "int32")
        ended = np.zeros(len(source), bool)
        for place in range(tokens.shape[1]):
            logits, cache = self._step(given, cache, token, place)
            token = np.where(ended, PADDING, logits.argmax(-1)).astype("int32")
            tokens[:, place] = token
            ended |= token == END
            if ended.all():
                break
        return tokens


def check_parts(runtime: Generator, samples: dict[str, Any]) -> None:
    """Raise ParityError if the names or sizes of the parts do not fit each other or the samples."""
    sizes: dict[str, set[tuple[int | None, ...]]] = {}
    for part, names in INTERFACE.items():
        found = tuple(tuple(tensor.name for tensor in tensors) for tensors in runtime.parts.get(part, ()))
        if tuple(map(sorted, found)) != tuple(map(sorted, names)):
            raise ParityError(f"The part {part} must take and give {names}. Received: {found}")
        for tensor in (*runtime.parts[part][0], *runtime.parts[part][1]):
            sizes.setdefault(tensor.name, set()).add(tuple(tensor.shape))
    _, count, heads, _, depth = runtime.tensor("cache").shape
    places = {key: values.shape[1] for key, values in samples["inputs"].items()}
    wanted = {
        "source": (places["source"],),
        "token": (),
        "position": (),
        "logits": samples["logits"].shape[2:],
        "memory": (count, heads, places["source"], depth),
        "cache": (count, heads, places["target"], depth),
        "next_cache": (count, heads, places["target"], depth),
    }
    for name, shape in wanted.items():
        if sizes[name] != {(runtime.batch, *shape)}:
            raise ParityError(f"{name} must have the shape {(runtime.batch, *shape)}. Received: {sizes[name]}")


def compare_written(runtime: Generator, samples: dict[str, Any]) -> dict[str, float | None]:
    """Compare what an artifact writes by itself with what its source writes, sequence by sequence.

    Returns:
        sequences_equal: the share equal to the source's, token by token; accuracy: the share that is right; and the
        source's, None where there are no labels. The first are 0 if what it writes for texts is anything else.
    """
    tokens, labels = samples["tokens"], samples.get("labels")
    wanted = None if labels is None else np.maximum(labels, PADDING)
    found = runtime.generate(samples["inputs"]["source"])
    texts = runtime.generate_strings([str(text) for text in samples["texts"]]) if "texts" in samples else None
    spoilt = texts is not None and texts != [str(text) for text in samples["written"]]
    return {
        "sequences_equal": 0.0 if spoilt else _equal(found, tokens),
        "accuracy": None if labels is None else _equal(found, wanted),
        "source_accuracy": None if labels is None else _equal(tokens, wanted),
    }


def _equal(found: Any, wanted: Any) -> float:
    """Return the share of rows that are equal."""
    return float((found == wanted).all(axis=1).mean())


def step_examples(parts: Sequence[Any], source: _np.ndarray, target: _np.ndarray) -> list[dict[str, _np.ndarray]]:
    """Return what the decoder is given at every step of some sequences, each with a batch of all.

    Args:
        parts: encoder and decoder, from dictionaries to dictionaries of arrays.
        source: int32 (n, S).
        target: int32 (n, T), the right tokens.
    """
    encode, decode = parts
    source, target = map(keras.ops.convert_to_tensor, (source, target))
    memory = encode(source=source)["memory"]
    shape = dict(decode.inputs)["cache"][0]
    cache, found = keras.ops.zeros((len(source), *shape), "float32"), []
    for place in range(target.shape[1]):
        position = keras.ops.full((len(source),), place, "int32")
        given = {"source": source, "memory": memory, "cache": cache, "token": target[:, place], "position": position}
        found.append({name: np.asarray(value) for name, value in given.items()})
        cache = decode(**given)["next_cache"]
    return found
