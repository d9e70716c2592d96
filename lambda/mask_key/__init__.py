"""Draws the key that masked views are made with."""
