"""How many of the bytes sent the peer's kernel has acknowledged.

A request that was sent while the server closed the connection may be sent again only if the server
cannot have read it. The kernel knows: the server's FIN acknowledges all that arrived before it (RFC
9293 §3.4). A reset without a FIN proves nothing: it may overtake a delayed acknowledgement.
"""

import asyncio
import socket
import struct

_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)
_ACKED_AT = 120
_UNSENT_AT = 144
_SENT_AT = 200
_INFO_BYTES = 216
"""``struct tcp_info`` in ``linux/tcp.h``, Linux 4.19 and later. Not available elsewhere."""


def unconfirmed_bytes(transport: asyncio.BaseTransport) -> int:
    """Return how many of the bytes written are not acknowledged, 0 if that is not known."""
    connected = transport.get_extra_info("socket")
    if _TCP_INFO is None or connected is None:
        return 0
    try:
        info = connected.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _INFO_BYTES)
    except OSError:
        return 0
    if len(info) < _INFO_BYTES:
        return 0
    acked: int = struct.unpack_from("=Q", info, _ACKED_AT)[0]
    unsent: int = struct.unpack_from("=I", info, _UNSENT_AT)[0]
    sent, repeated = struct.unpack_from("=QQ", info, _SENT_AT)
    # The SYN counts as acknowledged and not as sent.
    return int(sent - repeated + unsent + 1 - acked)
