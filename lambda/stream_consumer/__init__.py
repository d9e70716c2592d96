"""Reads the stream as records arrive and keeps the online feature store up to date."""
