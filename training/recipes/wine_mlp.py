"""A 13-32-3 MLP on scikit-learn's wine data.

Command: zoo train wine_mlp
Hardware: 2 CPU cores.
Time: 6 s of one core.
Result: test accuracy 1.0000 with seeds 1, 2 and 3, mean 1.0000, on 18 wines, the same as logistic regression.
Validation accuracy 1.0000, 0.9444 and 1.0000 on 18 wines.
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
        name="wine_mlp",
        model=ModelConfig("mlp", {"widths": [32]}),
        data=DataConfig("wine", batch_size=16),
        optimizer=OptimizerConfig("adamw", learning_rate=3e-3, weight_decay=1e-2),
        schedule=ScheduleConfig("cosine", warmup_epochs=1),
        epochs=30,
        precision="float32",
        strategy="one",
        save="last",
    )
)
