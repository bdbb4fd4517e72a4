"""Image augmentation in TensorFlow."""
