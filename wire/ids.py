"""Identifiers: UUIDs as canonical lower-case text (RFC 9562 §4), and the format of request ids.

A request id is a random UUID whose last four hex digits are the number of the gateway process that
holds the client, so that every process can tell which one an attach call or a poll belongs to.

Pure, so randomness is an argument here; `runtime.ids.new_uuid` makes a UUID without one.
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
    """Return the canonical form of a UUID of 36 characters, ``None`` if ``text`` is not one."""
    if _is_uuid(text) is None:
        return None
    return text.lower().decode()


def uuid4_text(random16: bytes) -> str:
    """Return the UUIDv4 of 16 random bytes (RFC 9562 §5.4)."""
    digits = random16.hex()
    variant = _VARIANT[random16[8] >> 4 & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def request_id(random16: bytes, process: int) -> RequestId:
    """Return a UUIDv4 that ends in ``process`` (0 to 65535); 106 of its bits are random."""
    digits = random16.hex()
    variant = _VARIANT[random16[8] >> 4 & 3]
    return RequestId(
        f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}"
        f"-{digits[20:28]}{process:04x}"
    )


def process_of(request_id: str) -> int:
    """Return the process number in a request id; every UUID has one, even if never issued."""
    return int(request_id[-4:], 16)
