"""Random identifiers. `wire.ids` parses them, and builds those that carry more than randomness."""

from uuid import uuid4


def new_uuid() -> str:
    """Return a random UUID (RFC 9562 §5.4) in canonical form: 36 characters, lower case."""
    return str(uuid4())
