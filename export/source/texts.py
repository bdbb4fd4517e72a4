"""Texts to calibrate a registry model on and to compare its artifacts on: a user's, or random words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from export.core.samples import SECOND_PASS
from export.source.request import NOISE, TEXTS, RegistryRequest
from training.data.tokenization import tokenizer
from zoo.common.errors import DataError
from zoo.common.lazy import np, tf
from zoo.reading.files import read_bytes
from zoo.reading.json_files import LIMIT
from zoo.specs.text import TextConfig

SEED = 0
CALIBRATED = 200
LEAST = 8  # texts to compare on


@dataclasses.dataclass(frozen=True)
class TextExamples:
    """Texts as token ids.

    Args:
        examples: a function from a count to ids to calibrate on, and ids to compare on, int32 (n, length).
        compared: the first texts that are compared.
    """

    examples: tuple[Callable[[int], Any], Any]
    compared: Any


def text_examples(request: RegistryRequest, text: TextConfig | None, most: int) -> TextExamples | None:
    """Return texts for a request, None if it has no tokenization or names examples of another kind.

    Args:
        request: the model and its calibration data.
        text: how strings become ids; None if it is not known.
        most: how many to compare on.

    Raises:
        DataError: the file cannot be read or has no text, or the ids of its texts are not known.
    """
    if request.samples == TEXTS and text is None:
        raise DataError(
            f"{request.name} cannot read texts without the tokenization of its weights. "
            f"Received: calibration={request.calibration!r}. Name a .npy file of ids."
        )
    if text is None or request.samples not in (TEXTS, NOISE):
        return None
    rng = np.random.default_rng(SEED)
    texts = _read(request.calibration) if request.samples == TEXTS else _noise(text.words, request.shape[0], most, rng)
    texts = [texts[i] for i in rng.permutation(len(texts))[: CALIBRATED + most]]
    second = min(most, len(texts) // 2)
    first, second_half = (texts, texts) if second < LEAST else (texts[:-second], texts[-second:])
    ids = tokenizer(text, request.shape[0])
    examples = [ids(tf.constant(half)).numpy() for half in (first, second_half)]
    return TextExamples((lambda count: examples[0][:count], examples[1]), np.array(second_half[:SECOND_PASS]))


def _read(path: str) -> list[str]:
    """Return the lines of a file that are not empty."""
    try:
        texts = [line for line in read_bytes(path, LIMIT).decode("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Expected a file of texts in UTF-8, one a line. Received: {path}: {error}") from error
    if not texts:
        raise DataError(f"Expected a file of texts, one a line. Received: {path} without any")
    return texts


def _noise(words: Sequence[str], length: int, most: int, rng: Any) -> list[str]:
    """Return texts of random words of a vocabulary, of up to the model's length."""
    lengths = rng.integers(1, max(2, length - 1), 2 * most)
    return [" ".join(words[i] for i in rng.integers(0, len(words), size)) for size in lengths]
