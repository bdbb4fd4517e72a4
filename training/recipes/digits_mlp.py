"""A 64-128-64-10 MLP on scikit-learn's digits.

Command: zoo train digits_mlp
Hardware: 2 CPU cores.
Time: 6 s.
Result: test accuracy 0.9167, 0.9278 and 0.9250 with seeds 1, 2 and 3, mean 0.9231, on the last 360 images.
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
        name="digits_mlp",
        model=ModelConfig("mlp", {"widths": [128, 64], "dropout": 0.2}),
        data=DataConfig("digits", batch_size=64),
        optimizer=OptimizerConfig("adamw", learning_rate=2e-3, weight_decay=1e-4),
        schedule=ScheduleConfig("cosine", warmup_epochs=1),
        epochs=40,
        precision="float32",
        strategy="one",
        save="last",
    )
)
