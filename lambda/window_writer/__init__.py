"""Puts the rows of the window job into the online feature store as they arrive."""
