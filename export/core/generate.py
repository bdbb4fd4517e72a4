"""A sequence-to-sequence model in its runtime: the encoder runs once, the decoder token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from export.core.runtime import Runtime, Tensor
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
    """A loaded artifact in two parts, encoder and decoder step, that generates sequences.

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
        """Return float32 logits (n, T, vocabulary) of the decoder under teacher forcing.

        Args:
            inputs: "source" (n, S) and "target" (n, T), int32; logits after the longest target are zero.
        """
        return in_batches(self._logits, inputs, self.batch)

    def generate(self, source: _np.ndarray) -> _np.ndarray:
        """Return tokens int32 (n, T) of sources int32 (n, S) by greedy decoding; `PADDING` follows `END`."""
        return in_batches(self._greedy, np.asarray(source, "int32"), self.batch)

    def generate_strings(self, texts: list[str]) -> list[str] | None:
        """Return the generated texts; None if the artifact has no text input."""
        return None

    def step(self, inputs: dict[str, _np.ndarray]) -> None:
        """Generate one batch of sequences; one sequence if the batch is dynamic."""
        self.generate(inputs["source"][: self.batch or 1])

    def _start(self, source: _np.ndarray) -> tuple[dict[str, _np.ndarray], _np.ndarray]:
        """Return the constant inputs of the decoder, and an empty cache."""
        memory = self.run("encode", {"source": source})["memory"]
        return {"source": source, "memory": memory}, np.zeros((len(source), *self.tensor("cache").shape[1:]), "float32")

    def _decode(self, constants: dict[str, Any], cache: Any, token: Any, position: int) -> tuple[Any, Any]:
        """Return the logits (n, vocabulary) after the tokens at a position, and the new cache."""
        positions = np.full(len(token), position, "int32")
        outputs = self.run("decode", {**constants, "token": token, "position": positions, "cache": cache})
        return outputs["logits"], outputs["next_cache"]

    def _logits(self, inputs: dict[str, _np.ndarray]) -> _np.ndarray:
        target = np.asarray(inputs["target"], "int32")
        constants, cache = self._start(np.asarray(inputs["source"], "int32"))
        used = np.flatnonzero((target != PADDING).any(axis=0))
        steps = []
        for position in range(used[-1] + 1 if used.size else 1):
            logits, cache = self._decode(constants, cache, np.ascontiguousarray(target[:, position]), position)
            steps.append(logits)
        rest = np.zeros((len(target), target.shape[1] - len(steps), steps[0].shape[-1]), "float32")
        return np.concatenate([np.stack(steps, axis=1), rest], axis=1)

    def _greedy(self, source: _np.ndarray) -> _np.ndarray:
        constants, cache = self._start(source)
        tokens = np.full((len(source), self.tensor("cache").shape[3]), PADDING, "int32")
        token = np.full(len(source), START, "int32")
        ended = np.zeros(len(source), bool)
        for position in range(tokens.shape[1]):
            logits, cache = self._decode(constants, cache, token, position)
            token = np.where(ended, PADDING, logits.argmax(-1)).astype("int32")
            tokens[:, position] = token
            ended |= token == END
            if ended.all():
                break
        return tokens


def check_parts(runtime: Generator, samples: dict[str, Any]) -> None:
    """Raise ParityError if names or shapes of the parts do not fit each other or the samples."""
    sizes: dict[str, set[tuple[int | None, ...]]] = {}
    for part, names in INTERFACE.items():
        received = tuple(tuple(tensor.name for tensor in tensors) for tensors in runtime.parts.get(part, ()))
        if tuple(map(sorted, received)) != tuple(map(sorted, names)):
            raise ParityError(f"Inputs and outputs of {part} must be {names}. Received: {received}")
        for tensor in (*runtime.parts[part][0], *runtime.parts[part][1]):
            sizes.setdefault(tensor.name, set()).add(tuple(tensor.shape))
    _, count, heads, _, depth = runtime.tensor("cache").shape
    lengths = {key: values.shape[1] for key, values in samples["inputs"].items()}
    expected = {
        "source": (lengths["source"],),
        "token": (),
        "position": (),
        "logits": samples["logits"].shape[2:],
        "memory": (count, heads, lengths["source"], depth),
        "cache": (count, heads, lengths["target"], depth),
        "next_cache": (count, heads, lengths["target"], depth),
    }
    for name, shape in expected.items():
        if sizes[name] != {(runtime.batch, *shape)}:
            raise ParityError(f"{name} must have the shape {(runtime.batch, *shape)}. Received: {sizes[name]}")


def compare_sequences(
    runtime: Generator, samples: dict[str, Any]
) -> tuple[float, _np.ndarray | None, _np.ndarray | None]:
    """Compare the sequences that an artifact generates with those of its source model.

    Returns:
        The fraction equal to the source's, token by token, 0 if generated texts differ; which sequences are equal to
        the labels; which of the source's are. The latter are None without labels.
    """
    tokens, labels = samples["tokens"], samples.get("labels")
    generated = runtime.generate(samples["inputs"]["source"])
    texts = runtime.generate_strings([str(text) for text in samples["texts"]]) if "texts" in samples else None
    texts_differ = texts is not None and texts != [str(text) for text in samples["generated"]]
    agreement = 0.0 if texts_differ else float(_equal_rows(generated, tokens).mean())
    if labels is None:
        return agreement, None, None
    targets = np.maximum(labels, PADDING)
    return agreement, _equal_rows(generated, targets), _equal_rows(tokens, targets)


def _equal_rows(a: Any, b: Any) -> Any:
    """Return which rows are equal."""
    return (a == b).all(axis=1)


def decoder_inputs(parts: Sequence[Any], source: _np.ndarray, target: _np.ndarray) -> list[dict[str, _np.ndarray]]:
    """Return the decoder's inputs at every step of some sequences, each a batch of all sequences.

    Args:
        parts: encoder and decoder, from dictionaries to dictionaries of arrays.
        source: int32 (n, S).
        target: int32 (n, T), the labels' tokens.
    """
    encode, decode = parts
    source, target = map(keras.ops.convert_to_tensor, (source, target))
    memory = encode(source=source)["memory"]
    shape = dict(decode.inputs)["cache"][0]
    cache, steps = keras.ops.zeros((len(source), *shape), "float32"), []
    for i in range(target.shape[1]):
        position = keras.ops.full((len(source),), i, "int32")
        values = {"source": source, "memory": memory, "cache": cache, "token": target[:, i], "position": position}
        steps.append({name: np.asarray(value) for name, value in values.items()})
        cache = decode(**values)["next_cache"]
    return steps
