"""Weights: published names and tables, the hub, readers of files and keras.Models, and loading them into a model."""
