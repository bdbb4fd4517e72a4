"""Model specs, the registry, and preprocessing and text configs: pure data, no framework."""
