"""Which bytes of an object a GET asks for (RFC 9110 §14)."""

import re
from collections.abc import Mapping
from email.utils import formatdate

from gateway.errors import ClientFault
from gateway.objects.interface import ObjectInfo

_one_range = re.compile(rb"bytes=(\d{0,18})-(\d{0,18})", re.IGNORECASE).fullmatch


class RangeNotSatisfiable(ClientFault):
    """The object ends before the range begins."""

    status = 416
    kind = "range-not-satisfiable"
    summary = "The object ends before the range begins"


def etag_of(info: ObjectInfo) -> bytes:
    """Return the entity tag, quoted."""
    return f'"{info.etag}"'.encode()


def last_modified_of(info: ObjectInfo) -> bytes:
    """Return the modified time as HTTP writes it."""
    return formatdate(info.modified_at, usegmt=True).encode()


def chosen_range(headers: Mapping[bytes, bytes], info: ObjectInfo) -> tuple[int, int] | None:
    """Return first and last byte of the range in a GET's headers, `None` for the whole object.

    Several ranges, and units that are not known, count as none (RFC 9110 §14.2); so does a range
    with an ``If-Range`` that names another state of the object (RFC 9110 §13.1.5). Raises
    `RangeNotSatisfiable`.
    """
    found = _one_range(headers.get(b"range", b"").replace(b" ", b""))
    condition = headers.get(b"if-range")
    if found is None or condition not in (None, etag_of(info), last_modified_of(info)):
        return None
    first_text, last_text = found.groups()
    if first_text:
        first, last = int(first_text), int(last_text) if last_text else info.size - 1
        if last_text and last < first:
            return None
    elif last_text:
        first, last = max(0, info.size - int(last_text)), info.size - 1
    else:
        return None
    if first >= info.size:
        raise RangeNotSatisfiable(headers=[(b"content-range", b"bytes */%d" % info.size)])
    return first, min(last, info.size - 1)
