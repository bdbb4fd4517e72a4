"""Structured pruning: branches and channels."""
