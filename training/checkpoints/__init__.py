"""Checkpoint files and the checkpoint manager."""
