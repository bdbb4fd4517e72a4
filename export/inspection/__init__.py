"""Inspection of model files without running them."""
