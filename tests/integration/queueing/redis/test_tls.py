"""Calls over TLS, with a login of each side."""

import ssl
from pathlib import Path

from tests.integration.queueing.redis.harness import Calls, gateway, options
from tests.support.certificates import Authority
from tests.support.queue_harness import new_version
from tests.support.redis_server import running_redis_server


async def test_calls_go_over_tls_with_logins(tmp_path: Path) -> None:
    version = new_version()
    authority = Authority(tmp_path)
    acl = [
        "user default off",
        "user gateway on >one ~* &* +@all",
        "user worker on >two ~rq:* &rq:* +@all",
    ]
    async with running_redis_server(
        "redis7", tls=authority, acl=acl, login=("gateway", "one")
    ) as server:
        context = ssl.create_default_context(cafile=authority.file)
        ours = options(server.url, tls=context)
        theirs = options(f"rediss://worker:two@localhost:{server.port}", tls=context)
        async with gateway(ours) as queue:
            calls = Calls(queue, version)
            async with calls.worker(theirs, 8):
                calls.call(50)
                await calls.decided()
                await server.restart()
                calls.call(50)
                await calls.decided()
                await calls.idle()
            assert calls.failed == {}
