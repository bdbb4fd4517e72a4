"""Pretrained weights: the hub, file readers, and loading them into a model."""
