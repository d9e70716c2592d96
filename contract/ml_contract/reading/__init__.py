"""From YAML to data with lines, and from pydantic's errors to problems with places."""
