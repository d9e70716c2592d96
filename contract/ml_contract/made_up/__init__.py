"""Records that nobody sent: made up, drifted, soiled. Runtime: no pydantic, no YAML."""
