"""ResNet-20 on scikit-learn's digits."""

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
        name="digits_resnet",
        model=ModelConfig("resnet20"),
        data=DataConfig("digits", batch_size=64, augment=AugmentConfig(shift=0.1, rotate=12, zoom=0.12)),
        optimizer=OptimizerConfig("sgd", learning_rate=0.1, weight_decay=5e-4),
        schedule=ScheduleConfig("cosine", warmup_epochs=2),
        loss=LossConfig(label_smoothing=0.1),
        epochs=40,
        precision="float32",
        strategy="one",
        keep="last",
    )
)
