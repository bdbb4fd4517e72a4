"""What is exported: runs and models of the registry."""
