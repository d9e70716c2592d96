"""Turns labels that arrive after the prediction into files that monitors merge with it."""
