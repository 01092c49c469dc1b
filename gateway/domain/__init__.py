"""Functions, versions and keys: the domain, pure."""
