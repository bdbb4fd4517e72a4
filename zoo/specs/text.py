"""The text contract: how strings become the token ids that a network was trained on. Pure data, no framework."""

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
    """Stated once with the data, applied in training and compiled into or written beside every artifact.

    A string is lower-cased and stripped of punctuation if `clean`, split, and each token replaced by its place in the
    vocabulary, by `UNKNOWN` where it has none; the sequence is cut or padded with `PADDING` at its end.

    Args:
        vocabulary: every token by its id, `SPECIAL` first.
        split: "word" at white space, or "character".
        clean: lower-case, and take out punctuation.
    """

    vocabulary: tuple[str, ...] = SPECIAL
    split: str = "word"
    clean: bool = True

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise BadOption(f"text.split must be one of {', '.join(SPLITS)}. Received: split={self.split!r}")
        if tuple(self.vocabulary[: len(SPECIAL)]) != SPECIAL or len(set(self.vocabulary)) != len(self.vocabulary):
            raise BadOption(
                f"A vocabulary starts with {list(SPECIAL)} and has each token once. "
                f"Received: {list(self.vocabulary[:6])} … ({len(self.vocabulary)} tokens)"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the contract as JSON-safe values."""
        return dataclasses.asdict(self) | {"vocabulary": list(self.vocabulary)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TextConfig:
        """Return the contract of `to_json`; raises BadOption."""
        try:
            return cls(tuple(map(str, values["vocabulary"])), values["split"], bool(values["clean"]))
        except (KeyError, TypeError) as error:
            raise BadOption(f"Expected a text contract. Received: {str(values)[:100]}") from error


def check_vocabulary(size: int) -> int:
    """Return how many tokens a network knows, or raise BadOption if that leaves out special ones."""
    if size < len(SPECIAL):
        raise BadOption(
            f"vocabulary must be at least {len(SPECIAL)}, the tokens that every one has. Received: vocabulary={size}"
        )
    return size
