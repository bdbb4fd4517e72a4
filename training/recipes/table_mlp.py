"""A small MLP on your own table, a CSV or Parquet file with a class or a number to predict.

Command: zoo train table_mlp --set data.path=FILE --set data.target=COLUMN
Hardware: 2 CPU cores.
Time: 6 s of one core for 142 training rows.
Result: test accuracy 1.0000 with seeds 1, 2 and 3, mean 1.0000, on 18 rows; the table was scikit-learn's wine data as
CSV.
"""

from __future__ import annotations

from training.recipe.config import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    RegularizeConfig,
    ScheduleConfig,
)
from training.recipe.recipe import Recipe, register_recipe

register_recipe(
    Recipe(
        name="table_mlp",
        model=ModelConfig("mlp", {"widths": [64, 64], "dropout": 0.1}),
        data=DataConfig("table", batch_size=32),
        optimizer=OptimizerConfig("adamw", learning_rate=3e-3, weight_decay=1e-2, clip_norm=1.0),
        schedule=ScheduleConfig("cosine", warmup_epochs=1),
        # Early stopping suits tables of any size.
        regularize=RegularizeConfig(patience=15),
        epochs=60,
        precision="float32",
        strategy="one",
        save="best",
    )
)
