"""A tiny transformer encoder on word_order: text classification by word order.

Command: zoo train word_order_encoder
Hardware: 2 CPU cores.
Time: 33 s of one core.
Result: test accuracy 0.9940, 0.9990 and 0.9960 with seeds 1, 2 and 3, mean 0.9963, on 1,000 sentences; logistic
regression on word counts has 0.4350.
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
        name="word_order_encoder",
        model=ModelConfig("encoder_tiny"),
        data=DataConfig("word_order", batch_size=64, length=(24,)),
        optimizer=OptimizerConfig("adamw", learning_rate=1e-3, weight_decay=0.01, clip_norm=1.0),
        schedule=ScheduleConfig("cosine", warmup_epochs=1),
        epochs=8,
        precision="float32",
        strategy="one",
        save="last",
    )
)
