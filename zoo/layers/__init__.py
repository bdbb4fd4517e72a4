"""Layers, blocks and heads of the model families."""
