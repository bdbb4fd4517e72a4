"""What a folder of Hugging Face's transformers, or sentence-transformers, says of its weights.

config.json has the options, tokenizer.json or vocab.txt the tokenization, modules.json the pooling, and
sentence_bert_config.json the length of a text.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from zoo.common.errors import BadOption
from zoo.reading.files import Refusal, read_bytes
from zoo.reading.json_files import LIMIT, read_json
from zoo.specs.info import ModelInfo
from zoo.specs.registry import ModelSpec, models
from zoo.specs.tasks import CLASSIFY, task_of
from zoo.specs.text import WordPieceConfig

CONFIG, TOKENIZER, VOCABULARY, MODULES = "config.json", "tokenizer.json", "vocab.txt", "modules.json"
SETTINGS, LENGTH = "tokenizer_config.json", "sentence_bert_config.json"
# Files next to the weights, except those of the modules.
FILES = (CONFIG, TOKENIZER, VOCABULARY, SETTINGS, MODULES, LENGTH)
# Ends of the names of classes in "architectures", by the task of our models.
REFUSAL = Refusal("weights must have readable files next to them", BadOption, "Use the files as they were published.")
TASKS = {"ForTokenClassification": "tag", "ForSequenceClassification": "classify"}
# Names of sizes in config.json, of BERT and of DistilBERT, by ours.
SIZES = {
    "width": ("hidden_size", "dim"),
    "depth": ("num_hidden_layers", "n_layers"),
    "hidden": ("intermediate_size", "hidden_dim"),
}
ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "swish": "silu"}
KINDS = ("bert", "distilbert")
ROLES = ("pad_token", "unk_token", "cls_token", "sep_token")
POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "class"}


Modules = list[dict[str, Any]]


class Length(TypedDict, total=False):
    """sentence_bert_config.json."""

    max_seq_length: int | None


class Config(TypedDict, total=False):
    """config.json: what is read of it."""

    model_type: str
    architectures: list[str] | None
    id2label: dict[str, Any] | None
    num_labels: int
    max_position_embeddings: int
    position_embedding_type: str
    hidden_size: int
    dim: int
    num_hidden_layers: int
    n_layers: int
    intermediate_size: int
    hidden_dim: int
    hidden_act: str
    activation: str
    vocab_size: int
    type_vocab_size: int
    num_attention_heads: int
    n_heads: int
    layer_norm_eps: float


def folder_info(spec: ModelSpec, folder: Path) -> ModelInfo | None:
    """Return the info of the weights in a folder, None if it has no config.json and no tokenizer.

    Args:
        spec: the spec of the model to load.
        folder: the folder of the weights.

    Raises:
        BadOption: the folder describes what this model cannot compute, or a file cannot be read.
    """
    config, text = _read(folder / CONFIG, Config), read_tokenizer(folder)
    if not config and text is None:
        return None
    pooling = _pooling(folder) if task_of(spec.task).vectors else {}
    options = {**_architecture(config, folder), **pooling, **_own_sizes(spec, config)}
    return ModelInfo(spec.name, options, text=text, labels=_labels(config))


def folder_sizes(spec: ModelSpec, folder: Path) -> tuple[int | None, tuple[int, ...] | None]:
    """Return the number of classes and the shape of one input that a folder states, None where it states none."""
    config, length = _read(folder / CONFIG, Config), _read(folder / LENGTH, Length).get("max_seq_length")
    positions = config.get("max_position_embeddings", spec.input_shape[0])
    length = int(length) if length else min(int(positions), spec.input_shape[0])
    return classes_of(config), None if (length,) == spec.input_shape else (length,)


def model_of(config: Mapping[str, Any]) -> str:
    """Return the registered model that a config.json describes: of its size, else the nearest of its kind and task.

    Raises:
        BadOption: it is no BERT.
    """
    kind, found = config.get("model_type"), _task(config) or CLASSIFY
    task = task_of(found).headless or found
    if kind not in KINDS:
        raise BadOption(f"weights must be of BERT or DistilBERT. Received: model_type={kind!r}. Convert it elsewhere.")
    known = [name for name in models.names() if "transformers" in models[name].name_mappings]
    fitting = {name: models[name].arguments for name in known if models[name].spec.task == task}
    found = {name: own for name, own in fitting.items() if (own.get("token_types") == 0) == (kind == "distilbert")}
    sizes = _sizes(config)
    return min(found, key=lambda name: [abs(found[name][key] - sizes.get(key, 0)) for key in ("width", "depth")])


def classes_of(config: Mapping[str, Any]) -> int | None:
    """Return the number of classes of a classifier of texts or tokens; None for an encoder."""
    labels = config.get("id2label")
    return (len(labels) if labels else int(config.get("num_labels", 2))) if _task(config) else None


def _labels(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the names of the classes, None if it has none or only numbers them."""
    named = config.get("id2label") or {}
    if not all(key.isdecimal() for key in named):
        raise BadOption(f"id2label must have numbers as keys. Received: config.json with {str(list(named))[:100]}")
    labels = tuple(str(named[key]) for key in sorted(named, key=int))
    return None if not _task(config) or labels == tuple(f"LABEL_{i}" for i in range(len(labels))) else labels


def _task(config: Mapping[str, Any]) -> str | None:
    """Return "tag" or "classify" for a classifier, None for an encoder."""
    classes = " ".join(config.get("architectures") or ())
    return next((task for end, task in TASKS.items() if end in classes), None)


def _sizes(config: Mapping[str, Any]) -> dict[str, int]:
    """Return the stated ones of width, depth and hidden units."""
    return {ours: int(config[key]) for ours, keys in SIZES.items() for key in keys if key in config}


def _own_sizes(spec: ModelSpec, config: Mapping[str, Any]) -> dict[str, int]:
    """Return the sizes of an architecture that no registered model has, for the one that stands for it."""
    if config.get("model_type") not in KINDS or model_of(config) != spec.name:
        return {}
    own, sizes = models[spec.name].arguments, _sizes(config)
    usual = {"width": own["width"], "depth": own["depth"], "hidden": 4 * sizes.get("width", own["width"])}
    return {name: value for name, value in sizes.items() if value != usual[name]}


def _read(path: Path, schema: Any = dict) -> Any:
    """Return the content of a JSON file, an empty one if there is none."""
    if not path.exists():
        return [] if schema is Modules else {}
    return read_json(path, schema, REFUSAL)


def _architecture(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the options in config.json that shapes do not show, or that follow from the language of the weights."""
    if not config:
        return {}
    kind = config.get("model_type", KINDS[0])
    if kind not in KINDS or config.get("position_embedding_type", "absolute") != "absolute":
        raise _unsupported(folder / CONFIG, f"model_type={kind!r}", "BERT or DistilBERT with absolute positions")
    activation = config.get("hidden_act", config.get("activation", "gelu"))
    sizes = {"vocabulary": "vocab_size", "token_types": "type_vocab_size"}
    return {
        **{ours: int(config[theirs]) for ours, theirs in sizes.items() if theirs in config},
        "attention_heads": int(config.get("num_attention_heads", config.get("n_heads", 12))),
        "epsilon": float(config.get("layer_norm_eps", 1e-12)),
        "activation": ACTIVATIONS.get(activation, activation),
    }


def module_folders(folder: Path) -> list[str]:
    """Return the sub-folders of the modules of sentence-transformers, in a folder with their list."""
    return [path for module in _read(folder / MODULES, Modules) if (path := str(module.get("path", "")))]


def _pooling(folder: Path) -> dict[str, Any]:
    """Return the options of the modules after the encoder, of sentence-transformers."""
    found: dict[str, Any] = {}
    for module in _read(folder / MODULES, Modules):
        kind, path = str(module.get("type", "")).rpartition(".")[2], folder / str(module.get("path", ""))
        if kind == "Pooling":
            given = _read(path / CONFIG)
            modes = [key for key, value in given.items() if key.startswith("pooling_mode_") and value is True]
            modes = [POOLINGS.get(key, key) for key in modes] or [given.get("pooling_mode", "mean")]
            modes = ["class" if mode == "cls" else mode for mode in modes]
            if modes not in (["mean"], ["class"]):
                raise _unsupported(path / CONFIG, f"pooling={modes}", "the mean of the tokens or the first token")
            found |= {"pooling": modes[0], "pooler": "", "normalize": False}
        elif kind == "Normalize":
            found["normalize"] = True
        elif kind != "Transformer":
            raise _unsupported(folder / MODULES, f"the module {kind}", "Transformer, Pooling and Normalize")
    return found


def read_tokenizer(folder: Path) -> WordPieceConfig | None:
    """Return the tokenization of tokenizer.json, else that of vocab.txt; None without either.

    Raises:
        BadOption: it is no WordPiece, or a file cannot be read.
    """
    settings = _read(folder / SETTINGS, dict)
    special = tuple(_name(settings.get(role), default) for role, default in zip(ROLES, _DEFAULTS, strict=True))
    if (folder / TOKENIZER).is_file():
        return _from_json(folder / TOKENIZER, special)
    if not (folder / VOCABULARY).is_file():
        return None
    try:
        tokens = read_bytes(folder / VOCABULARY, LIMIT).decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadOption(f"Expected a readable vocabulary. Received: {folder / VOCABULARY}: {error}") from error
    lowercase = bool(settings.get("do_lower_case", True))
    accents = settings.get("strip_accents")
    return WordPieceConfig(
        tuple(token.rstrip("\r") for token in (tokens if tokens[-1] else tokens[:-1])),
        lowercase=lowercase,
        strip_accents=lowercase if accents is None else bool(accents),
        split_cjk=bool(settings.get("tokenize_chinese_chars", True)),
        special=(*special, *(token for token in (_name(settings.get("mask_token"), "[MASK]"),) if token in tokens)),
    )


_DEFAULTS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def _name(value: Any, default: str) -> str:
    """Return the name of a special token, which is a text or an object with it."""
    return str(value.get("content", default) if isinstance(value, Mapping) else value or default)


def _from_json(path: Path, special: tuple[str, ...]) -> WordPieceConfig:
    """Return the tokenization of a tokenizer.json."""
    content = _read(path)
    try:
        model, normalizer = content["model"], content["normalizer"] or {}
        kinds = model.get("type", "WordPiece"), normalizer.get("type", "BertNormalizer")
        kinds = *kinds, (content["pre_tokenizer"] or {}).get("type")
        if kinds != ("WordPiece", "BertNormalizer", "BertPreTokenizer"):
            raise _unsupported(path, f"{', '.join(map(str, kinds))}", "WordPiece after BERT's normalization")
        ids = model["vocab"]
        if sorted(ids.values()) != list(range(len(ids))):
            raise _unsupported(path, "ids with gaps", "ids from 0 on")
        others = [str(token["content"]) for token in content.get("added_tokens") or []]
        lowercase, accents = bool(normalizer.get("lowercase")), normalizer.get("strip_accents")
        return WordPieceConfig(
            tuple(sorted(ids, key=ids.get)),
            clean=bool(normalizer.get("clean_text")),
            lowercase=lowercase,
            strip_accents=lowercase if accents is None else bool(accents),
            split_cjk=bool(normalizer.get("handle_chinese_chars")),
            special=tuple(dict.fromkeys((*special, *others))),
            prefix=str(model["continuing_subword_prefix"]),
            longest=int(model["max_input_chars_per_word"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, BadOption):
            raise
        raise BadOption(f"Expected a tokenizer. Received: {path} ({type(error).__name__}: {error})") from error


def _unsupported(path: Path, found: str, expected: str) -> BadOption:
    return BadOption(f"weights must be of {expected}. Received: {path} with {found}. Convert the model elsewhere.")
