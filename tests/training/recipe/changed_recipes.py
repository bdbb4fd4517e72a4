"""A recipe with one value changed, with the keys that the value requires."""

from __future__ import annotations

from training import AugmentConfig, DataConfig, Recipe, TeacherConfig

RECIPE = Recipe("test", data=DataConfig(augment=AugmentConfig(flip=True)), teacher=TeacherConfig(run="runs/teacher"))


# Keys that a key requires, where it does not apply to the base recipe.
COMPANIONS = {
    "optimizer.beta_1": {"optimizer.name": "adam"},
    "optimizer.beta_2": {"optimizer.name": "adam"},
    "optimizer.epsilon": {"optimizer.name": "adam"},
    "optimizer.rho": {"optimizer.name": "rmsprop"},
    "schedule.period": {"schedule.name": "exponential"},
    "schedule.factor": {"schedule.name": "exponential", "schedule.period": 2},
    "schedule.power": {"schedule.name": "polynomial"},
    "schedule.warmup_epochs": {"epochs": 1_000_000},
    "loss.gamma": {"loss.name": "focal"},
    "loss.delta": {"loss.name": "huber"},
    "finetune.views": {"finetune.stages": ["head"], "data.augment.flip": True, "teacher": None},
    "teacher.beta": {"teacher.features": [1]},
}
NEEDED = {
    "step": {"schedule.milestones": [1, 2]},
    "exponential": {"schedule.period": 2},
    "cosine_restarts": {"schedule.period": 2},
    "inverse_sqrt": {"schedule.warmup_epochs": 1},
}


def override(key, value):
    """Return the recipe with one value changed."""
    return RECIPE.override(**{key: value})


def override_with(key, value):
    """Return the recipe with one value changed, and with the keys that it requires; a default requires none."""
    more = {} if value == value_of(RECIPE, key) else COMPANIONS.get(key, {})
    return RECIPE.override(**more, **(NEEDED.get(value, {}) if isinstance(value, str) else {}), **{key: value})


def value_of(recipe, key):
    """Return the value at a dotted key."""
    for part in key.split("."):
        recipe = recipe[part] if isinstance(recipe, dict) else getattr(recipe, part)
    return recipe


def one_line(error):
    """Return the message, and check that it is one line with the received value."""
    message = str(error.value)
    assert "\n" not in message
    assert "Received: " in message
    return message
