"""ResNet-50 from ImageNet's weights on PASCAL VOC 2007, several labels at once.

Binary cross-entropy on each of the 20 kinds of objects, crops of 448 pixels; trained on the 2,501 images of the
training split alone, with the 2,510 others to choose by.

Command: zoo train voc2007_resnet50 --set data.path=FOLDER
Hardware: made for 1 GPU.
Time: on one GPU of today some 10 min, an estimate.
Result: no accuracy is published of these very choices, and they were not run here.
"""

from __future__ import annotations

from training._configs import (
    AugmentConfig,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
)
from training._recipe import Recipe, register

register(
    Recipe(
        name="voc2007_resnet50",
        model=ModelConfig("resnet50", weights="imagenet"),
        data=DataConfig(
            "voc2007",
            batch_size=16,
            image_size=(448, 448),
            channels=3,
            augment=AugmentConfig(flip=True, crop_scale=(0.25, 1.0)),
        ),
        optimizer=OptimizerConfig("sgd", learning_rate=0.01, weight_decay=1e-3),
        schedule=ScheduleConfig("cosine", warmup_epochs=1),
        epochs=20,
        keep="best",
    )
)
