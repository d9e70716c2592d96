"""Features over time, on every engine. Runtime: no pydantic, no YAML."""
