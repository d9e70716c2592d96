"""Raw records to curated rows: typed, one per identifier, judged by the data quality ruleset."""
