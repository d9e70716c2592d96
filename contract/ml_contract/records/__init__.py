"""Records as they arrive: checked, typed, read from files, named. Runtime: no pydantic, no YAML."""
