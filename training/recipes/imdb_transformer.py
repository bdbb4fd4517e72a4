"""A transformer with one block on IMDB's reviews.

After Keras' example "Text classification with Transformer" (Nandan 2020): the 20,000 most frequent words,
200 of a review, one block of width 32 with two heads, batches of 32, two epochs of Adam. The example
truncates reviews to their last 200 words, this recipe to the first, and has a hidden layer of 20 units before the
classes.

Command: zoo train imdb_transformer --set data.path=FOLDER
Hardware: published: not reported; 2 CPU cores are enough.
Time: published: 28 s.
Result: published: accuracy 0.8745 on the 25,000 test reviews after two epochs. Not run here.
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
        name="imdb_transformer",
        model=ModelConfig("encoder_tiny", {"width": 32, "depth": 1, "attention_heads": 2, "dropout": 0.1}),
        data=DataConfig("imdb", batch_size=32, length=(200,), vocabulary=20_000),
        optimizer=OptimizerConfig("adam", learning_rate=1e-3),
        schedule=ScheduleConfig("constant"),
        epochs=2,
        save="best",
    )
)
