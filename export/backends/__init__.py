"""Runtime families: convert, run and read their files."""
