"""Reports, plots, tables and selection of artifacts."""
