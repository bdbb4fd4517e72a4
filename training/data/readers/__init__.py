"""Readers of images, tables, texts, TFRecord files and TensorFlow Datasets."""
