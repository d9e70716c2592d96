"""The verdict as a page for people: one file, no script, nothing fetched, light and dark."""
