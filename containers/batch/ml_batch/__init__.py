"""The batch image: raw rows to curated rows to features on one machine, as the Spark jobs do on many."""
