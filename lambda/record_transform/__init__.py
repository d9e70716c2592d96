"""Checks records on their way from the stream to the raw zone; refused ones go to the quarantine."""
