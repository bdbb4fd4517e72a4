"""Strategies, clusters and the replicated step."""
