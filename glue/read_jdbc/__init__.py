"""The job that reads what is new in a table of a database."""
