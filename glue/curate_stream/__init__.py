"""Records of a stream to checked rows, by micro-batches."""
