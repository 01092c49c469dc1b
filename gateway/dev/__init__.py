"""`gateway dev`: the whole system on one machine, nothing else needed."""
