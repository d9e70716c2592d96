"""What AWS documents and no model holds, dated, each entry with its source."""
