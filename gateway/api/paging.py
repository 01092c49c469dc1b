"""Cursors of lists as text: opaque to clients, validated when they are sent back."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error

from gateway.domain.catalog import Cursor, Visibility
from gateway.errors import BadRequest


def encode_cursor(visibility: Visibility, cursor: Cursor) -> str:
    """Return the text for "after the version at ``cursor`` in the list of ``visibility``"."""
    text = "|".join((visibility.value, *cursor))
    return urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def decode_cursor(text: str) -> tuple[Visibility, Cursor]:
    """Return the arguments of `encode_cursor`. Raises `BadRequest` for any other text."""
    try:
        decoded = urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        visibility, created_at, version_id, function_id = decoded.split("|")
        return Visibility(visibility), Cursor(created_at, version_id, function_id)
    except (Base64Error, ValueError) as error:
        raise BadRequest("The cursor is not valid") from error
