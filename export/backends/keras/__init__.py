"""The Keras file format."""
