"""Bounds of HTTP/2 beyond those of `http1.server.limits`, with the reason for each number."""

from typing import Final

MAX_STREAMS: Final = 128
"""Requests of one connection at a time (SETTINGS_MAX_CONCURRENT_STREAMS); more are refused."""
STREAM_WINDOW: Final = 1 << 20
"""Bytes of a body that a client may send ahead of its reader, as Go's server has it. Less would be
little for each round trip, and httpx 0.28 can miss the news of a window that it waits for while
another call of the connection reads."""
CONNECTION_WINDOW: Final = 1 << 22
"""The same of all bodies of a connection."""
MAX_HELD_BYTES: Final = 1 << 22
"""With so many bytes of bodies held for readers that paused, a connection gets no more window."""
WORK_A_TURN: Final = 1024
"""Frames of one connection that are read before other connections have their turn."""
WORK_OF_HEAD: Final = 16
"""What a header block counts, beside one for each 64 bytes: 64 requests or 64 KiB make a turn."""
MAX_BLOCK_FRAMES: Final = 32
"""CONTINUATION frames of one header block."""
STREAM_HIGH_WATER: Final = 32_768
"""Unsent bytes of one response beyond which its producer is paused."""

MAX_NOISE: Final = 2_000.0
"""Frames without any use for the client's own calls, beyond which the connection ends: SETTINGS,
PING, PRIORITY, WINDOW_UPDATE, empty DATA, unknown kinds. Useful frames make up for them."""
NOISE_PER_S: Final = 200.0
"""So many are forgotten each second."""
NOISE_OF_RESET: Final = 10.0
"""What a reset by the client counts soon after its request: a route and a publish were for nothing.
One of a call that has lived for `LONG_LIVED_S` is a deadline, say, and counts as any frame."""
LONG_LIVED_S: Final = 0.5
NOISE_OF_REFUSED: Final = 3.0
"""What a request counts beyond `MAX_STREAMS`: a client may send several hundred at once before it
has read our settings."""
LARGE_HEAD: Final = 4
"""A header block of up to so many times the largest list is decoded, and its request refused; more
ends the connection."""
LINGER_BYTES: Final = 1 << 30
"""What a client may send of a body after its response, which is dropped. httpx loses the response
to a reset (`docs/wire.md` §1.6)."""
NOISE_OF_LARGE_HEAD: Final = 50.0
"""What a header block counts that is too large: it had to be decoded all the same."""
USE_OF_FRAME: Final = 2.0
"""What a useful frame makes up for: a DATA frame that we send gets two WINDOW_UPDATEs back."""
