"""The 4-16-3 perceptron on iris.

Command: zoo train iris_mlp
Hardware: 2 CPU cores.
Time: 21 to 29 s, the machine shared with others.
Result: test accuracy 0.7333, 0.7333 and 0.8667 with seeds 1, 2 and 3, mean 0.7778, on 15 flowers, where logistic
regression reaches 0.8667; 1.0000 on the 15 that validate.
"""

from __future__ import annotations

from training._configs import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
)
from training._recipe import Recipe, register

register(
    Recipe(
        name="iris_mlp",
        model=ModelConfig("mlp", {"widths": [16]}),
        data=DataConfig("iris", batch_size=16, shares=(0.5, 0.2, 0.3)),
        optimizer=OptimizerConfig("adamw", learning_rate=1e-2, weight_decay=1e-2),
        schedule=ScheduleConfig("cosine", warmup_epochs=1),
        epochs=40,
        precision="float32",
        strategy="one",
        keep="last",
    )
)
