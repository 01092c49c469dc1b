"""What commands of the store raise."""

from typing import Any, cast

import pytest

from gateway.store.redis.masters import ERRORS, RedisClient, call


class Closing:
    """A client of a Cluster that is down: it has just closed the connection of this command."""

    async def execute_command(self, *_command: Any) -> None:
        writer: Any = None
        writer.writelines(())


async def test_a_connection_that_its_client_closes_under_a_command_is_lost() -> None:
    with pytest.raises(ERRORS):
        await call(cast(RedisClient, Closing()), "HGET")
