"""Commands without replies, on a server that is busy with a script."""

import pytest

from queueing.redis.addresses import parse_server
from queueing.redis.commands import encode
from queueing.redis.errors import NotConnected
from queueing.redis.link import RedisOptions, open_link
from runtime.tasks import spawn
from tests.support.redis_server import available_servers, running_redis_server
from tests.support.waiting import until


@pytest.mark.parametrize("kind", available_servers())
async def test_a_link_ends_on_which_replies_may_be_out_of_step(kind: str) -> None:
    async with running_redis_server(kind, ["--busy-reply-threshold", "50"]) as server:
        options = RedisOptions((parse_server(server.url),))
        link = await open_link(options.servers[0], options)
        other = await open_link(options.servers[0], options)
        slow = spawn(other.call(b"EVAL", b"while true do end", b"0", timeout_s=60.0), "slow")
        await server.logged("Slow script detected")
        link.send_silently(encode(b"PING"))
        with pytest.raises(NotConnected):
            await link.call(b"GET", b"key")
        assert link.is_lost
        await until(lambda: server.run("SCRIPT", "KILL"))
        await until(slow.done)
        assert slow.exception() is not None
        other.close("done")
