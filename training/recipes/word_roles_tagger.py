"""A tiny transformer encoder that tags each word with its role.

Command: zoo train word_roles_tagger
"""

from __future__ import annotations

from training._recipe import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    Recipe,
    ScheduleConfig,
    register,
)

register(
    Recipe(
        name="word_roles_tagger",
        model=ModelConfig("tagger_tiny"),
        data=DataConfig("word_roles", batch_size=64, length=(24,)),
        optimizer=OptimizerConfig("adamw", learning_rate=1e-3, weight_decay=0.01, clip_norm=1.0),
        schedule=ScheduleConfig("cosine", warmup_epochs=1),
        epochs=12,
        precision="float32",
        strategy="one",
        keep="last",
    )
)
