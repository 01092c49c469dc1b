"""What a call carries: everything is made of its number, so that another call's data is noticed."""

from collections.abc import Mapping
from hashlib import sha256

CALL = "x-call"
"""Header with the number of the call, in requests and in responses."""
TARGET = "x-target"
"""Header with what is the path of other calls, of one whose path is its function's."""


def payload(number: int, size: int) -> bytes:
    """Return ``size`` bytes that belong to a call."""
    line = b"call %d\n" % number
    return (line * (size // len(line) + 1))[:size]


def event(number: int, index: int) -> bytes:
    """Return one event of a call's stream."""
    return b"data: %d %d\n\n" % (number, index)


def receipt(number: int, body: bytes) -> bytes:
    """Return the response to a request with a body."""
    return f"call {number} {len(body)} {sha256(body).hexdigest()}\n".encode()


def foreign_part(found: bytes, number: int, expected: bytes) -> str:
    """Return where ``found`` stops being a part of ``expected``, empty if it does not."""
    if expected.startswith(found):
        return ""
    at = next(
        (i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), len(expected)
    )
    return f"{found[at : at + 40]!r} at byte {at}, not data of call {number}"


def target(number: int, behaviour: str, parameters: Mapping[str, object]) -> str:
    """Return the path of a call."""
    query = "&".join(f"{name}={value}" for name, value in parameters.items())
    return f"/{behaviour}/{number}" + (f"?{query}" if query else "")
