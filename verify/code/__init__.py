"""The code that an assembly deploys, read without running it."""
