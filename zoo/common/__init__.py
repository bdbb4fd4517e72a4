"""Errors, types, console output, lazy imports and atomic files, shared by all packages."""
