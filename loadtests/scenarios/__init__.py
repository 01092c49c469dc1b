"""One module per row of the table: measure a running system and return its figures."""
