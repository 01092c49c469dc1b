"""The attach exchanges on a connection without a socket."""

from typing import Any

from http1.client.connection import ClientConnection
from worker_agent.attach.stream import RestOfBody


class Transport:
    """Remembers whether it is read from."""

    is_read = True

    def write(self, data: bytes) -> None: ...

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True


class Slow:
    """A job whose inference server is slow at once; also owner and clock of the connection."""

    rest: RestOfBody
    received = b""
    is_released = False
    is_over = False

    def rest_data(self, data: bytes) -> None:
        self.received += data
        self.rest.pause_reading()

    def rest_end(self) -> None:
        self.is_over = True

    def released(self, _: ClientConnection) -> None:
        self.is_released = True

    def time(self) -> float:
        return 1.0


def test_a_rest_that_came_in_one_read_leaves_its_connection_readable() -> None:
    slow: Any = Slow()
    transport: Any = Transport()
    connection = ClientConnection(slow, slow)
    connection.connection_made(transport)
    rest = slow.rest = RestOfBody(slow)
    assert rest.opened(connection, b"GET / HTTP/1.1\r\n\r\n")
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 20000\r\n\r\n" + b"x" * 20_000)
    assert slow.received == b"x" * 20_000
    assert slow.is_released
    assert slow.is_over
    assert transport.is_read
