"""The text config: how strings become the token ids of a model. Pure data, no framework."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from zoo.common.errors import BadOption
from zoo.common.types import fit_type

# The first ids of every vocabulary.
PADDING, UNKNOWN, START, END = range(4)
SPECIAL = ("", "[UNK]", "[START]", "[END]")
SPLITS = ("word", "character")
WORDPIECE = "wordpiece"


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

    @property
    def words(self) -> tuple[str, ...]:
        """The tokens without the special ones."""
        return self.vocabulary[len(SPECIAL) :]

    @classmethod
    def from_json(cls, values: Any) -> TextConfig:
        """Return the config of `to_json` values; raises BadOption."""
        try:
            if values["split"] == WORDPIECE:
                hints = typing.get_type_hints(WordPieceConfig)
                fitted = {name: fit_type(value, hints[name], f"text.{name}") for name, value in values.items()}
                return WordPieceConfig(**fitted)
            return cls(tuple(map(str, values["vocabulary"])), values["split"], bool(values["clean"]))
        except (KeyError, TypeError) as error:
            raise BadOption(f"Expected a text config. Received: text={str(values)[:100]}") from error


@dataclasses.dataclass(frozen=True)
class WordPieceConfig(TextConfig):
    """BERT's tokenization, with the vocabulary of pretrained weights.

    A text is split at white space and around punctuation, and each word into the longest pieces that the vocabulary
    has, from its front; a word that has none is unknown. Between a first and a last special token it is truncated, then
    padded at its end.

    Args:
        vocabulary: the tokens by id; padding is the first.
        split: "wordpiece".
        clean: remove control characters.
        lowercase: lower-case the text.
        strip_accents: remove accents.
        split_cjk: make each Chinese character a word.
        special: tokens for padding, unknown words, the start and the end, and any others; a text that has the name of
            one has the token.
        prefix: start of the pieces inside a word.
        longest: characters of a word; a longer one is unknown.
    """

    split: str = WORDPIECE
    lowercase: bool = True
    strip_accents: bool = True
    split_cjk: bool = True
    special: tuple[str, ...] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    prefix: str = "##"
    longest: int = 100

    def __post_init__(self) -> None:
        known = set(self.vocabulary)
        missing = [token for token in self.special if token not in known]
        if self.split != WORDPIECE or len(self.special) < len(SPECIAL) or missing:
            raise BadOption(
                "text.vocabulary must have a token for padding, unknown words, the start and the end. "
                f"Received: special={self.special}, of which it lacks {missing}"
            )
        if self.vocabulary[0] != self.special[0] or len(known) != len(self.vocabulary):
            raise BadOption(
                f"text.vocabulary must start with {self.special[0]!r} and have unique tokens. "
                f"Received: vocabulary={list(self.vocabulary[:6])} … ({len(self.vocabulary)} tokens)"
            )

    @property
    def words(self) -> tuple[str, ...]:
        """The tokens that are neither special nor pieces inside a word."""
        return tuple(t for t in self.vocabulary if not (t in self.special or t.startswith((self.prefix, "[unused"))))

    def to_json(self) -> dict[str, Any]:
        """Return the config as JSON-safe values."""
        return super().to_json() | {"special": list(self.special)}


def check_vocabulary(size: int) -> int:
    """Return a checked vocabulary size, or raise BadOption if it has no room for the special tokens."""
    if size < len(SPECIAL):
        raise BadOption(
            f"vocabulary must be at least {len(SPECIAL)}, the number of special tokens. Received: vocabulary={size}"
        )
    return size
