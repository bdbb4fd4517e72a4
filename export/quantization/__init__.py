"""Preparation of float models for 8 bits: the same for every runtime, before its own quantizer runs."""
