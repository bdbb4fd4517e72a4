"""The input pipeline: from a dataset to shuffled, augmented, normalized batches."""
