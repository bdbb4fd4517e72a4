"""The way of an export: refuse early, convert in a child process, verify, try remedies, publish the artifact."""
