"""Latency, memory and cold-start measurement."""
