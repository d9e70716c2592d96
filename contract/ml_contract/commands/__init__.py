"""What ``python -m ml_contract`` does beside checking."""
