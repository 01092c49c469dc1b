"""The bound of a body, for whoever reads one: on the way to the API, and in it."""

from gateway.errors import BodyTooLarge

MAX_BODY_BYTES = 1_048_576


def check_body_bytes(count: int | None) -> None:
    """Raise `BodyTooLarge` for so many bytes, if so many are known, above `MAX_BODY_BYTES`."""
    if count is not None and count > MAX_BODY_BYTES:
        raise BodyTooLarge(f"A body has at most {MAX_BODY_BYTES} bytes")
