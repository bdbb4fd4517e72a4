"""Progress, TensorBoard, gradient and activation statistics, and diagnosis."""
