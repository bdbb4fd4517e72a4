"""Datasets: splits, column schemas, tokenization, readers and the input pipeline."""
