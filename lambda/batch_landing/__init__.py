"""Lands batches: files of the drop bucket become Parquet of the raw table, a quarantine, an audit record."""
