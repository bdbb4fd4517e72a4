"""Recipes and their configs, and starter files."""
