"""Hyperparameter search and the learning-rate finder."""
