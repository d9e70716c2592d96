"""Creates the parameter that says which model is approved, and never writes it again."""
