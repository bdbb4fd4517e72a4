"""Recipes: one file each, found by its place."""
