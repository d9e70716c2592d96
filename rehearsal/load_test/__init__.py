"""The load test: how long a container takes to answer against how much is asked of it, and where it bends."""
