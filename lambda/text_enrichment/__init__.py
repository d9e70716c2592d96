"""Texts of curated rows become entities and sentiment of Amazon Comprehend. Entry point: ``handler.handler``."""
