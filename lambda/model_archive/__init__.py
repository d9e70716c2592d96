"""Puts old versions of a model package group away."""
