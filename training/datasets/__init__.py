"""Datasets: one file each; a new file registers itself."""
