"""Layers, blocks and heads that the families are made of."""
