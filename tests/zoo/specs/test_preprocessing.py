"""The preprocessing config: its JSON, its presets, and values that are refused."""

from __future__ import annotations

import dataclasses
import json

import pytest

import zoo
from zoo.common.errors import BadOption
from zoo.specs.preprocessing import PRESETS, PreprocessingConfig, parse_preprocessing

# Every field away from its default.
FULL = PreprocessingConfig((1.0, 2.0, 3.0), (4.0,), "bicubic", 0.9, "bgr", (0.0, 128.0, 255.0), 12)


def test_every_field_survives_json():
    """A config is the same after JSON text, and no field has its default, so that a lost one is seen."""
    for field in dataclasses.fields(PreprocessingConfig):
        assert getattr(FULL, field.name) != field.default
    text = json.dumps(FULL.to_json())
    assert PreprocessingConfig.from_json(json.loads(text)) == FULL
    assert parse_preprocessing(text) == FULL
    changed = json.loads(text) | {"channel_order": "rgb"}
    assert PreprocessingConfig.from_json(changed) != FULL


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    """A name, its config and its JSON are the same."""
    config = PRESETS[name]
    assert parse_preprocessing(name) is config
    assert parse_preprocessing(config) is config
    assert parse_preprocessing(json.dumps(config.to_json())) == config
    assert parse_preprocessing(config.to_json()) == config


def test_lists_and_single_numbers_are_accepted():
    """Numbers of any form become tuples of floats, so that equal configs are equal and hashable."""
    config = zoo.PreprocessingConfig(mean=127, std=[127.5], background=[0])
    assert config == zoo.PreprocessingConfig(mean=(127.0,), std=(127.5,), background=(0.0,))
    assert hash(config) == hash(parse_preprocessing('{"mean": 127, "std": 127.5, "background": 0}'))


REFUSED = [
    ("imagnet", "one of imagenet, symmetric"),
    ("{", "one of imagenet"),
    ("[1]", "one of imagenet"),
    (3, "one of imagenet"),
    (None, "one of imagenet"),
    ({"means": [1]}, "Did you mean 'mean'?"),
    ({3: 1}, "no such key"),
    ({"mean": ["a"]}, "finite numbers"),
    ({"mean": [float("nan")]}, "finite numbers"),
    ({"std": [True]}, "finite numbers"),
    ({"std": [0]}, "above 0"),
    ({"mean": [1, 2], "std": [1, 2, 3]}, "per channel"),
    ({"crop": "1"}, "at most 1"),
    ({"crop": True}, "at most 1"),
    ({"interpolation": "cubic"}, "one of nearest"),
    ({"channel_order": "grb"}, "one of rgb, bgr"),
    ({"background": [256]}, "0 to 255"),
    ({"background": []}, "0 to 255"),
]


@pytest.mark.parametrize(("value", "hint"), REFUSED, ids=[str(value) for value, _ in REFUSED])
def test_other_values_are_refused(value, hint):
    """A wrong name, key or value is refused in one line."""
    with pytest.raises(BadOption) as error:
        parse_preprocessing(value)
    assert hint in str(error.value)
    assert "Received: " in str(error.value)
    assert "\n" not in str(error.value)


def test_channels_of_the_background_are_checked():
    """A background has one color for all channels or one per channel."""
    config = PreprocessingConfig(background=(0.0, 128.0, 255.0))
    config.check(3)
    with pytest.raises(BadOption, match="background must have 1 number for data of 1 channels"):
        config.check(1)
