"""Interfaces and data that every format and compression shares."""
