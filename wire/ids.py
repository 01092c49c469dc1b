"""Identifiers: canonical lower-case UUID text (RFC 9562 §4), and how a request's id is made.

A request id is a random UUID whose last four hex digits name the gateway process that holds the
client, so that any process of the group can tell where an attach call or a poll belongs.
"""

import re
from typing import NewType

FunctionId = NewType("FunctionId", str)
VersionId = NewType("VersionId", str)
RequestId = NewType("RequestId", str)

UUID_CHARACTERS = 36
MAX_PROCESSES = 0x1_0000

_is_uuid = re.compile(
    rb"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
).fullmatch
_VARIANT = "89ab"


def parse_uuid(text: bytes) -> str | None:
    """Return the canonical form of 36 characters in any case; ``None`` when it is no UUID."""
    if _is_uuid(text) is None:
        return None
    return text.lower().decode()


def uuid4_text(random16: bytes) -> str:
    """Return a UUIDv4 made of 16 random bytes (RFC 9562 §5.4)."""
    digits = random16.hex()
    variant = _VARIANT[random16[8] >> 4 & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def request_id(random16: bytes, process: int) -> RequestId:
    """Return a UUIDv4 that ends in ``process`` (0..65535); 106 bits of it are random."""
    digits = random16.hex()
    variant = _VARIANT[random16[8] >> 4 & 3]
    return RequestId(
        f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}"
        f"-{digits[20:28]}{process:04x}"
    )


def process_of(request_id: str) -> int:
    """Return the process that `request_id` was given; any UUID has one, issued here or not."""
    return int(request_id[-4:], 16)
