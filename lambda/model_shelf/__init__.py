"""Puts approved models where a server that is not given a model package finds them."""
