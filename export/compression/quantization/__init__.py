"""Quantization-aware training and mixed precision."""
