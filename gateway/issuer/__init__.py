"""The issuer of JWTs: its published keys, fetched in the background."""
