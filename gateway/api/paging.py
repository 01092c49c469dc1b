"""Cursors: where a list goes on. Opaque to clients, checked when they come back."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error

from gateway.domain.catalog import Place, Visibility
from gateway.errors import BadRequest


def cursor_of(visibility: Visibility, place: Place) -> str:
    """Return the cursor behind the version at ``place`` in the list of ``visibility``."""
    text = "|".join((visibility.value, *place))
    return urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def read_cursor(cursor: str) -> tuple[Visibility, Place]:
    """Return what `cursor_of` was given. Raises `BadRequest` for what it never returned."""
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        kind, created_at, version_id, function_id = text.split("|")
        return Visibility(kind), Place(created_at, version_id, function_id)
    except (Base64Error, ValueError) as error:
        raise BadRequest("The cursor is none of ours") from error
