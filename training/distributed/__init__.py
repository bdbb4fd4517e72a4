"""Strategies, clusters, the replicated step, and the launch of several workers."""
