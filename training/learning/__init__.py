"""Tasks, losses, metrics, evaluation, and the training model."""
