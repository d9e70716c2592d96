"""Entities and sentiment of curated texts, by Amazon Comprehend. Entry point: ``handler.handler``."""
