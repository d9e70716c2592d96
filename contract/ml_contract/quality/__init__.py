"""Data quality rules and who judges by them. Runtime: no pydantic, no YAML."""
