"""Commands in RESP, the protocol of Redis and Valkey (redis.io, "Redis serialization protocol").

Replies are parsed by `hiredis`.
"""

from binascii import crc_hqx

SLOTS = 16384
"""The slots of a cluster (redis.io, "Redis cluster specification")."""


def encode(*words: bytes) -> bytes:
    """Return one command."""
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"".join(parts)


def bulk(word: bytes) -> bytes:
    """Return one word of a command."""
    return b"$%d\r\n%b\r\n" % (len(word), word)


def slot_of(key: bytes) -> int:
    """Return the slot of a key: of the part in its first braces, if there is one."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS
