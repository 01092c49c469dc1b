"""More calls than the workers can do: what is answered, what is refused, and what is started."""

import asyncio
import time
from dataclasses import dataclass, field

from runtime.tasks import spawn
from tests.support.raw_server import Peer, RawServer
from tests.support.stack import Gateway, Stack

SLOTS = 4
SERVICE_S = 0.1
POLL_S = 2


class PacedServer:
    """An inference server that takes `SERVICE_S` for each call and notes when it began, by id."""

    def __init__(self) -> None:
        self.started: dict[str, float] = {}
        self.server = RawServer(self._serve)

    async def _serve(self, peer: Peer) -> None:
        while True:
            head = await peer.head()
            if b" /health " not in head:
                number = head.partition(b"x-number: ")[2].partition(b"\r\n")[0].decode()
                self.started[number] = time.monotonic()
                await asyncio.sleep(SERVICE_S)  # its work
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


@dataclass
class Answer:
    number: str
    at: float
    status: int
    headers: dict[str, str]


@dataclass
class Clients:
    """Clients that each make one call on a connection of their own."""

    gateways: list[Gateway]
    key: str
    function_id: str
    answers: list[Answer] = field(default_factory=list)
    _count: int = 0

    async def call(self) -> Answer:
        self._count += 1
        number = str(self._count)
        # Three of four go to the first gateway.
        gateway = self.gateways[0 if self._count % 4 else -1]
        host, _, port = gateway.url.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"POST /x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self.key}\r\n"
            f"function-id: {self.function_id}\r\nnvcf-poll-seconds: {POLL_S}\r\n"
            f"x-number: {number}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()
        )
        status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        writer.close()
        headers = dict(line.split(": ", 1) for line in lines if line)
        answer = Answer(number, time.monotonic(), int(status_line.split()[1]), headers)
        self.answers.append(answer)
        return answer

    async def closed_loop(self, clients: int, until_s: float) -> None:
        async def one() -> None:
            while time.monotonic() < until_s:
                await self.call()

        await asyncio.gather(*(one() for _ in range(clients)))

    async def open_loop(self, rate: float, until_s: float) -> "list[asyncio.Task[Answer]]":
        """Call ``rate`` times per second, whatever the answers; return all calls."""
        began, made, calls = time.monotonic(), 0, []
        while (now := time.monotonic()) < until_s:
            while made < (now - began) * rate:
                made += 1
                calls.append(spawn(self.call(), "call"))
            await asyncio.sleep(0.005)  # the rate is what is tested
        return calls

    async def capacity(self) -> float:
        """Return how many calls per second are answered when every slot is always busy."""
        began = time.monotonic()
        await self.closed_loop(2 * SLOTS, began + 2)
        return self.rate(began + 0.5, began + 2)

    def rate(self, since: float, until_: float) -> float:
        """Return how many calls per second were answered with 200."""
        good = sum(each.status == 200 and since <= each.at < until_ for each in self.answers)
        return good / (until_ - since)


async def test_under_overload_the_capacity_is_answered_and_the_rest_is_told_when_to_come_back(
    stack: Stack,
) -> None:
    paced = PacedServer()
    await paced.server.start()
    try:
        gateways = [stack.gateway(), stack.gateway()]
        # In a thread: the agent waits for the inference server, which runs in this loop.
        await asyncio.to_thread(
            stack.agent,
            INFERENCE__PORT=str(paced.server.port),
            INFERENCE__MAX_CONCURRENCY=str(SLOTS),
        )
        clients = Clients(gateways, stack.demo.api_key, stack.demo.function_id)
        capacity = await clients.capacity()
        assert capacity > 0.5 * SLOTS / SERVICE_S

        began = time.monotonic()
        calls = await clients.open_loop(3 * capacity, began + 7)
        await asyncio.sleep(1)  # the time within which it must recover
        recovered = await clients.call()
        await asyncio.gather(*calls)
        assert recovered.status == 200
        # Measured again: other programs may have begun to use the machine.
        least = min(capacity, await clients.capacity())

        # The line is full from the second second on.
        goodput = clients.rate(began + 2, began + 7)
        assert goodput >= 0.9 * least

        unanswered = [each for each in clients.answers if each.status != 200]
        assert {each.status for each in unanswered} <= {429, 504}
        refused = [each for each in unanswered if each.status == 429]
        assert len(refused) > 0.4 * 3 * capacity * 7
        assert all(int(each.headers["retry-after"]) >= 1 for each in unanswered)
        assert not [each for each in refused if each.number in paced.started]
        late = [each for each in unanswered if paced.started.get(each.number, each.at) > each.at]
        assert not late
        # What was started was nearly always of use.
        assert len(unanswered) - len(refused) <= 0.1 * len(clients.answers)
    finally:
        paced.server.stop()
