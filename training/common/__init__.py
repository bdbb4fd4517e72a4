"""Helpers of several packages of training."""
