"""Helpers that several rooms of training share."""
