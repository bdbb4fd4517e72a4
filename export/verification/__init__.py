"""Parity with the source model."""
