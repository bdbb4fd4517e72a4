"""Token ids and vectors of strings, with the tokenization that a model's weights expect."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zoo.common.errors import BadOption
from zoo.common.lazy import LazyModule, np
from zoo.layers.lazy import saving
from zoo.specs.text import SPECIAL, UNKNOWN, TextConfig, WordPieceConfig

if TYPE_CHECKING:
    import numpy as _np

tokenizers = LazyModule("tokenizers", extra="text")

# ASCII punctuation, of which some is no punctuation in Unicode, and Unicode's.
PUNCTUATION = r"[!-/:-@\[-`{-~]|\p{P}"


def tokenize(model: Any, texts: Sequence[str]) -> _np.ndarray:
    """Return the token ids of texts; see `zoo.tokenize`."""
    return encode(_text(model), texts, model.input_shape[-1])


def embed(model: Any, texts: Sequence[str], batch_size: int) -> _np.ndarray:
    """Return the vectors of texts; see `zoo.embed`."""
    if len(model.output_shape) != 2:
        raise BadOption(f"model must give one vector for a text. Received: {model.name} with {model.output_shape}")
    ids = tokenize(model, texts)
    if not len(ids):
        return np.zeros((0, model.output_shape[-1]), "float32")
    return model.predict(ids, batch_size=batch_size, verbose=0)


def _text(model: Any) -> TextConfig:
    """Return the tokenization of a model's weights; raises BadOption."""
    info = saving.info_of(model)
    if info is None or info.text is None:
        raise BadOption(
            f"model must know how strings become ids. Received: {getattr(model, 'name', model)!r}, which does not. "
            "Load weights from a folder with a tokenizer.json or vocab.txt, or pass ids to the model."
        )
    return info.text


def encode(text: TextConfig, texts: Sequence[str], length: int) -> _np.ndarray:
    """Return the ids of texts.

    Args:
        text: the tokenization.
        texts: strings (n,).
        length: length that every sequence is truncated or padded to.

    Returns:
        Ids, int32 (n, length), padded with 0 at the end; a text without tokens is one unknown token.

    Raises:
        BadOption: `texts` is one string, or not of strings.
        MissingDependency: tokenizers is not installed.
    """
    if isinstance(texts, (str, bytes)) or not all(isinstance(each, str) for each in texts):
        raise BadOption(f"texts must be a list of strings. Received: texts={str(texts)[:80]!r}")
    encoded = _tokenizer(text, length).encode_batch(list(texts))
    rows = [(encoding.ids or [UNKNOWN])[:length] for encoding in encoded]
    ids = np.zeros((len(rows), length), "int32")
    for row, found in zip(ids, rows, strict=True):
        row[: len(found)] = found
    return ids


@functools.lru_cache(4)
def _tokenizer(text: TextConfig, length: int) -> Any:
    """Return the tokenizer of the library for a text config."""
    made = _word_piece(text) if isinstance(text, WordPieceConfig) else _whole_tokens(text)
    made.enable_truncation(max(length, made.num_special_tokens_to_add(False)))
    return made


def _word_piece(text: WordPieceConfig) -> Any:
    ids = {token: number for number, token in enumerate(text.vocabulary)}
    _, unknown, start, end = text.special[:4]
    model = tokenizers.models.WordPiece(
        ids, unk_token=unknown, max_input_chars_per_word=text.longest, continuing_subword_prefix=text.prefix
    )
    made = tokenizers.Tokenizer(model)
    made.normalizer = tokenizers.normalizers.BertNormalizer(
        clean_text=text.clean,
        handle_chinese_chars=text.split_cjk,
        strip_accents=text.strip_accents,
        lowercase=text.lowercase,
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(token, ids[token]) for token in (start, end)]
    )
    made.add_special_tokens(list(text.special))
    return made


def _whole_tokens(text: TextConfig) -> Any:
    """Return the tokenizer of words or characters."""
    own = {token: number + len(SPECIAL) for number, token in enumerate(text.words)}
    name = "\N{REPLACEMENT CHARACTER}" * 2  # no token of a text, unlike the name of a special token
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({**own, name: UNKNOWN}, unk_token=name))
    if text.clean:
        remove = tokenizers.normalizers.Replace(tokenizers.Regex(PUNCTUATION), "")
        made.normalizer = tokenizers.normalizers.Sequence([tokenizers.normalizers.Lowercase(), remove])
    each = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    made.pre_tokenizer = each if text.split == "character" else tokenizers.pre_tokenizers.WhitespaceSplit()
    return made
