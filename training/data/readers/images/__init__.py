"""Image files: checks, conversion, label files, and datasets of them."""
