"""Which connections of a pool may carry another request, without a socket."""

import asyncio
from collections.abc import Callable

from http1.client.connection import ClientConnection
from http1.client.pool import Pool
from runtime.tasks import spawn
from tests.support.waiting import until
from tests.unit.http1.client.transport import Transport


class Socketless(Transport):
    def get_extra_info(self, name: str) -> None:  # type: ignore[override]
        """There is no socket whose peer could be watched."""


async def test_the_connection_of_an_awaited_status_is_nobody_elses() -> None:
    opened: list[ClientConnection] = []

    async def connect(factory: Callable[[], asyncio.Protocol]) -> None:
        connection = factory()
        assert isinstance(connection, ClientConnection)
        connection.connection_made(Socketless())  # type: ignore[arg-type]
        opened.append(connection)

    pool = Pool(connect, idle_s=60, max_idle=2, connect_timeout_s=5)
    asked = spawn(pool.status_of(b"POST / HTTP/1.1\r\n\r\n", 5), "status")
    await until(lambda: opened and opened[0].response_stream, what="the request")
    # All of it in one turn of the loop: the waiter has not run when another request comes.
    opened[0].data_received(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert pool.take() is None
    assert await asked == 204
