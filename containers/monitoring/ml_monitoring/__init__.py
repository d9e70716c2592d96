"""The monitoring image: compares captured traffic with the baseline of the model that answered it."""
