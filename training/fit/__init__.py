"""Training from end to end: prepare, fit, stop, resume, and fine-tune."""
