"""Curated rows to the features zone and the Feature Store."""
