"""`gateway dev`: the whole system on one machine, without other requirements."""
