"""The position of a withdrawn request, with a broker that the test plays."""

import orjson
import pytest

from queueing.nats.connection import NatsConnection, Reply
from queueing.nats.peers import Peers
from queueing.nats.positions import Positions

VERSION = "9b2e0c1d-0000-4000-8000-00000000000f"


class PlayedBroker:
    """A connection to a broker that counts ``leases`` more at each question."""

    def __init__(self, leases: int) -> None:
        self.leases = leases
        self.script: list[str] = []
        self.created = "one"

    async def request(self, subject: bytes, payload: bytes, timeout_s: float = 2.0) -> Reply:
        deliveries = 10 + self.leases * self.script.count("asked")
        self.script.append("asked")
        state = {
            "created": self.created,
            "delivered": {"stream_seq": 10, "consumer_seq": deliveries},
            "num_pending": 5,
            "num_ack_pending": 1,
            "num_redelivered": 0,
            "num_waiting": 0,
            "config": {},
        }
        return Reply(b"", orjson.dumps(state))


class Own:
    """Two requests of this process are ahead."""

    def sequence_of(self, request_id: str) -> int:
        return 14

    def count_between(self, version_id: str, delivered: int, sequence: int) -> int:
        return 2


class OtherProcess:
    """One request of another process is ahead."""

    def __init__(self, broker: PlayedBroker) -> None:
        self._broker = broker

    async def count_between(self, version_id: str, delivered: int, sequence: int) -> int:
        self._broker.script.append("counted")
        return 1


def positions(broker: PlayedBroker) -> Positions:
    connection: NatsConnection = broker  # type: ignore[assignment]
    peers: Peers = OtherProcess(broker)  # type: ignore[assignment]
    return Positions(connection, "test", Own(), peers)


@pytest.mark.parametrize(("leases", "told"), [(0, 4), (3, 4), (4, None), (50, None)])
async def test_a_request_that_may_have_been_leased_meanwhile_is_told_no_position(
    leases: int, told: int | None
) -> None:
    broker = PlayedBroker(leases)
    withdraw = lambda: broker.script.append("withdrawn")  # noqa: E731
    assert await positions(broker).withdrawn(VERSION, 14, withdraw) == told
    assert broker.script == ["asked", "withdrawn", "counted", "asked"]


async def test_a_queue_that_is_replaced_meanwhile_has_no_positions() -> None:
    broker = PlayedBroker(0)

    def withdraw() -> None:
        broker.created = "another"

    assert await positions(broker).withdrawn(VERSION, 14, withdraw) is None
