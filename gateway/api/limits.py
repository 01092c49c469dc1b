"""The limits of a request body of the REST API, checked on the way to the API and in it."""

from gateway.errors import BodyTooLarge

MAX_BODY_BYTES = 1_048_576
"""Maximum bytes of a body, as received and again after its content coding is undone."""

MAX_VALUES = 20_000
"""Maximum number of JSON values in a body: each costs about a microsecond, in which the event loop
serves nothing else."""


def check_body_bytes(count: int | None) -> None:
    """Raise `BodyTooLarge` if ``count`` is above `MAX_BODY_BYTES`; `None` is not known yet."""
    if count is not None and count > MAX_BODY_BYTES:
        raise BodyTooLarge(f"A body has at most {MAX_BODY_BYTES} bytes")
