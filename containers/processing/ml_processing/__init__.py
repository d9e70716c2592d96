"""The processing image: prepares training data and judges a trained model on the held-out split."""
