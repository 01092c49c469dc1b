"""The link for messages, while the one for commands comes and goes."""

import asyncio
from typing import cast

from queueing.redis.addresses import parse_server
from queueing.redis.connection import RedisConnection
from queueing.redis.link import Link, RedisOptions, open_link
from queueing.redis.subscriber import Subscriber
from tests.support.redis_server import available_servers, running_redis_server
from tests.support.waiting import until


class _Connection:
    """Has two links for commands, of which the first is lost as soon as it is asked for."""

    def __init__(self, options: RedisOptions, links: list[Link]) -> None:
        self.options = options
        self._links = links
        self._listener: Subscriber | None = None

    def add_listener(self, listener: Subscriber) -> None:
        self._listener = listener

    def remove_listener(self, _listener: Subscriber) -> None:
        self._listener = None

    def link(self, _slot: int) -> Link:
        if len(self._links) == 1:
            return self._links[0]
        lost = self._links.pop(0)
        lost.abort("lost")
        if self._listener is not None:
            self._listener.link_down(lost)
        return lost


async def test_a_link_for_messages_whose_link_for_commands_was_lost_meanwhile_is_closed() -> None:
    async with running_redis_server(available_servers()[0]) as server:
        options = RedisOptions((parse_server(server.url),))
        links = [await open_link(options.servers[0], options) for _ in range(2)]
        kept = links[1]
        ready = asyncio.Event()
        subscriber = Subscriber(
            cast(RedisConnection, _Connection(options, links)),
            0,
            lambda _: ready.set(),
            lambda: None,
        )
        subscriber.start()
        await ready.wait()
        assert subscriber.main is kept
        # The second link for commands, the link for messages, and that of the question.
        await until(
            lambda: server.run("CLIENT", "LIST"), lambda clients: clients.count(b" addr=") == 3
        )
        await subscriber.close()
        kept.close("done")
