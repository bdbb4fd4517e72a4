"""Dotted keys of a recipe: overrides from the command line, and the nearest key for a wrong one."""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from zoo.common.errors import BadOption, did_you_mean
from zoo.reading.json_files import parse_json

# What other libraries call our keys, by the last part of a key.
SYNONYMS = {
    "accum": "accumulate",
    "architecture": "name",
    "batch": "batch_size",
    "betas": "beta_1",
    "bs": "batch_size",
    "checkpoint_interval": "checkpoint_steps",
    "clipnorm": "clip_each",
    "clipvalue": "clip_value",
    "criterion": "loss",
    "dataset": "data",
    "decay": "weight_decay",
    "early_stopping": "patience",
    "ema_decay": "ema",
    "eps": "epsilon",
    "eta": "learning_rate",
    "fine_tune": "finetune",
    "finetuning": "finetune",
    "freeze": "stages",
    "freeze_bn": "freeze_batch_norm",
    "global_clipnorm": "clip_norm",
    "grad_accum": "accumulate",
    "gradient_accumulation_steps": "accumulate",
    "horizontal_flip": "flip",
    "hflip": "flip",
    "img_size": "image_size",
    "input_size": "image_size",
    "keep": "save",
    "kwargs": "options",
    "learning_rate_schedule": "schedule",
    "lr": "learning_rate",
    "lr_scheduler": "schedule",
    "max_epochs": "epochs",
    "max_grad_norm": "clip_norm",
    "max_length": "length",
    "minibatch_size": "batch_size",
    "mixed_precision": "precision",
    "mistakes": "misclassified",
    "mode": "place",
    "num_epochs": "epochs",
    "n_epochs": "epochs",
    "opt": "optimizer",
    "optim": "optimizer",
    "pretrained": "weights",
    "random_erasing": "erase",
    "random_seed": "seed",
    "rotation": "rotate",
    "scheduler": "schedule",
    "shares": "split_fractions",
    "smoothing": "label_smoothing",
    "stochastic_depth": "drop_path",
    "translate": "shift",
    "unfreeze": "stages",
    "vocab_size": "vocabulary",
    "warmup": "warmup_epochs",
    "wd": "weight_decay",
    "xla": "jit",
}


def parse_override(text: str) -> tuple[str, Any]:
    """Split "a.b=value" into the key and the value, parsed as JSON if possible and else a string.

    Args:
        text: an override as on the command line.

    Raises:
        BadOption: there is no "=" or no key.
    """
    key, equals, value = text.partition("=")
    if not (equals and key.strip()):
        raise BadOption(f"An override is written key=value, such as optimizer.learning_rate=0.05. Received: {text!r}")
    try:
        return key.strip(), parse_json(value)
    except ValueError:  # no JSON, or brackets and numbers without end
        return key.strip(), value


def set_value(values: dict[str, Any], key: str, value: Any, root: type) -> None:
    """Set one value in the JSON of a dataclass; types are checked when the dataclass is rebuilt.

    Args:
        values: the JSON, which changes.
        key: the dotted key.
        value: its new value.
        root: the dataclass.
    """
    *parents, last = key.split(".")
    if not all((*parents, last)):
        raise BadOption(f"A key is written a.b, without empty parts. Received: {key!r}")
    owner: Any = root
    place = values
    for depth, part in enumerate(parents, start=1):
        owner = field_type(owner, part, key, root)
        if dataclasses.is_dataclass(owner) and place[part] is None:
            place[part] = json.loads(json.dumps(dataclasses.asdict(owner())))
        if not isinstance(place.get(part), dict):
            raise BadOption(f"{'.'.join(parents[:depth])} holds one value, not keys. Received: {key}={value!r}")
        place = place[part]
    wanted = field_type(owner, last, key, root)
    one_or_more = isinstance(wanted, types.UnionType) and str in typing.get_args(wanted)
    if wanted is str or (one_or_more and not isinstance(value, (list, tuple))):
        value = value if isinstance(value, str) else json.dumps(value)
    place[last] = value


@functools.cache
def field_types(owner: type) -> Mapping[str, Any]:
    """Return the types of a dataclass's fields by name; each evaluation of the annotations takes 0.2 ms."""
    return types.MappingProxyType(typing.get_type_hints(owner))


def field_type(owner: Any, name: str, key: str, root: type) -> Any:
    """Return the type of a field (its dataclass where it is one or None), or raise BadOption.

    Args:
        owner: the dataclass, or dict where keys are free.
        name: the field.
        key: the dotted key, for the message.
        root: the dataclass at the root, which has the keys to suggest.
    """
    if not dataclasses.is_dataclass(owner):
        return dict
    known = field_types(owner)
    if name not in known:
        raise unknown_key(key, root)
    return nested_type(known[name])


def nested_type(wanted: Any) -> Any:
    """Return the dataclass in a type such as `Config | None`, else the type."""
    return next((t for t in typing.get_args(wanted) if dataclasses.is_dataclass(t)), wanted)


def unknown_key(key: str, root: type) -> BadOption:
    """Return the error for a key that does not exist, with the nearest one."""
    return BadOption(f"Expected a key of a recipe. Received: {key!r}. {did_you_mean(key, all_keys(root), SYNONYMS)}")


def all_keys(root: type, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of a dataclass, tables included."""
    for name, wanted in field_types(root).items():
        nested = nested_type(wanted)
        yield prefix + name
        if dataclasses.is_dataclass(nested):
            yield from all_keys(nested, f"{prefix}{name}.")


def value_at(values: Any, key: str) -> Any:
    """Return the value at a dotted key; None below a table that is not set."""
    for part in key.split("."):
        values = None if values is None else getattr(values, part)
    return values
