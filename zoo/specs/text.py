"""The text config: how strings become the token ids of a model. Pure data, no framework."""

from __future__ import annotations

import dataclasses
from typing import Any

from zoo.common.errors import BadOption

# The first ids of every vocabulary.
PADDING, UNKNOWN, START, END = range(4)
SPECIAL = ("", "[UNK]", "[START]", "[END]")
SPLITS = ("word", "character")


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Tokenization, defined once with the data, applied in training and included in or written next to every artifact.

    A string is lower-cased and stripped of punctuation if `clean`, and split into tokens; a token becomes its index in
    the vocabulary, or `UNKNOWN`. The sequence is truncated, or padded with `PADDING`, at its end.

    Args:
        vocabulary: the tokens by id, `SPECIAL` first.
        split: "word" to split at white space, or "character".
        clean: lower-case the text and remove punctuation.
    """

    vocabulary: tuple[str, ...] = SPECIAL
    split: str = "word"
    clean: bool = True

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise BadOption(f"text.split must be one of {', '.join(SPLITS)}. Received: split={self.split!r}")
        if tuple(self.vocabulary[: len(SPECIAL)]) != SPECIAL or len(set(self.vocabulary)) != len(self.vocabulary):
            raise BadOption(
                f"text.vocabulary must start with {list(SPECIAL)} and have unique tokens. "
                f"Received: vocabulary={list(self.vocabulary[:6])} … ({len(self.vocabulary)} tokens)"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the config as JSON-safe values."""
        return dataclasses.asdict(self) | {"vocabulary": list(self.vocabulary)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TextConfig:
        """Return the config of `to_json` values; raises BadOption."""
        try:
            return cls(tuple(map(str, values["vocabulary"])), values["split"], bool(values["clean"]))
        except (KeyError, TypeError) as error:
            raise BadOption(f"Expected a text config. Received: text={str(values)[:100]}") from error


def check_vocabulary(size: int) -> int:
    """Return a checked vocabulary size, or raise BadOption if it has no room for the special tokens."""
    if size < len(SPECIAL):
        raise BadOption(
            f"vocabulary must be at least {len(SPECIAL)}, the number of special tokens. Received: vocabulary={size}"
        )
    return size
