"""Brings pictures of a video stream into the lake."""
