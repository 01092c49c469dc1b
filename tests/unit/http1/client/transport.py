"""The transport of a connection without a socket."""

import socket


class Transport:
    """As much of `asyncio.Transport` as a connection uses."""

    def __init__(self) -> None:
        self.sent = b""
        self.closing = False
        self.has_ended_input = False
        self.linger = b""

    def write(self, data: bytes) -> None:
        self.sent += data

    def writelines(self, parts: tuple[bytes, ...]) -> None:
        self.sent += b"".join(parts)

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True

    close = abort

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def write_eof(self) -> None:
        self.has_ended_input = True

    def get_extra_info(self, name: str) -> "Transport":
        assert name == "socket"
        return self

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER)
        self.linger = value

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        return b""
