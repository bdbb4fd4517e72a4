"""Generators of synthetic examples."""
