"""What is exported: Keras models of the user, in memory or in a file."""
