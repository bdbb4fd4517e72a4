"""A tiny transformer encoder on word_roles: a role tag for each word.

Command: zoo train word_roles_tagger
Hardware: 2 CPU cores.
Time: 18 s of one core.
Result: test accuracy 1.0000, 0.9995 and 0.9993 with seeds 1, 2 and 3, mean 0.9996, on the words of 500 sentences; the
most frequent tag of each word has 0.6175.
"""

from __future__ import annotations

from training.recipe.config import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
)
from training.recipe.recipe import Recipe, register_recipe

register_recipe(
    Recipe(
        name="word_roles_tagger",
        model=ModelConfig("tagger_tiny"),
        data=DataConfig("word_roles", batch_size=64, length=(24,)),
        optimizer=OptimizerConfig("adamw", learning_rate=1e-3, weight_decay=0.01, clip_norm=1.0),
        schedule=ScheduleConfig("cosine", warmup_epochs=1),
        epochs=12,
        precision="float32",
        strategy="one",
        save="last",
    )
)
