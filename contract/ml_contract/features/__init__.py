"""Features as expressions say, on every engine, and what is fitted. Runtime: no pydantic, no YAML."""
