"""A micro vision transformer on scikit-learn's digits.

Command: zoo train digits_vit
"""

from __future__ import annotations

from training._recipe import (
    AugmentConfig,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    Recipe,
    ScheduleConfig,
    register,
)

register(
    Recipe(
        name="digits_vit",
        model=ModelConfig("vit_micro_tiny", {"patch": 2, "pooling": "mean"}),
        data=DataConfig("digits", batch_size=64, augment=AugmentConfig(shift=0.06, rotate=8, zoom=0.08)),
        optimizer=OptimizerConfig("adamw", learning_rate=2e-3, weight_decay=1.0, clip_norm=1.0),
        schedule=ScheduleConfig("cosine", warmup_epochs=5),
        loss=LossConfig(label_smoothing=0.1),
        epochs=120,
        precision="float32",
        strategy="one",
        keep="last",
    )
)
