"""One module per row of the table: drive a running system, return its figures."""
