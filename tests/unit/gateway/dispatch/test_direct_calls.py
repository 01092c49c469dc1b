"""What each process tells of the calls that its workers have over channels, and what it hears."""

from gateway.dispatch.direct_calls import DirectCalls
from queueing.interface import MessageHandler, Subscription

ONE, OTHER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


class Listening(Subscription):
    def __init__(self, bus: "Air", subject: bytes, handler: MessageHandler) -> None:
        self.bus, self.subject, self.handler = bus, subject, handler

    def unsubscribe(self) -> None:
        self.bus.listening.remove(self)


class Air:
    """A bus on which everybody hears a subject, also who speaks."""

    def __init__(self) -> None:
        self.listening: list[Listening] = []
        self.said: list[bytes] = []

    def subscribe(self, subject: bytes, handler: MessageHandler) -> Subscription:
        self.listening.append(Listening(self, subject, handler))
        return self.listening[-1]

    def publish(self, subject: bytes, payload: bytes) -> bool:
        self.said.append(payload)
        for one in self.listening:
            if one.subject == subject:
                one.handler(subject, b"", payload)
        return True

    async def request(self, subject: bytes, payload: bytes, timeout_s: float = 2.0) -> bytes:
        raise NotImplementedError


class Region:
    """Two processes; ``here`` and ``there`` are their calls on channels by version."""

    def __init__(self) -> None:
        self.now = 100.0
        self.air = Air()
        self.here: dict[str, int] = {}
        self.there: dict[str, int] = {}
        clock = lambda: self.now  # noqa: E731
        self.first = DirectCalls(self.air, "eu", "a", lambda: self.here, clock)
        self.second = DirectCalls(self.air, "eu", "b", lambda: self.there, clock)
        self.first.start()
        self.second.start()


def test_the_calls_of_all_processes_are_counted() -> None:
    region = Region()
    region.here, region.there = {ONE: 3}, {ONE: 4, OTHER: 1}
    assert region.first.count(ONE) == 3
    region.second.tick()
    region.first.tick()
    assert (region.first.count(ONE), region.first.count(OTHER)) == (7, 1)
    assert (region.second.count(ONE), region.second.count(OTHER)) == (7, 1)


def test_the_calls_of_other_regions_are_counted_only_where_all_are() -> None:
    region = Region()
    region.there = {ONE: 4}
    us = DirectCalls(region.air, "us", "c", lambda: {ONE: 2}, lambda: region.now, ["eu"])
    us.start()
    region.second.tick()
    us.tick()
    assert (us.count(ONE), us.count_everywhere(ONE)) == (2, 6)
    assert region.first.count(ONE) == 4
    region.now += 2.1
    assert us.count_everywhere(ONE) == 2
    us.close()
    assert [one.subject for one in region.air.listening] == [b"nvcf.direct.eu"] * 2


def test_the_end_of_all_calls_is_told_once_and_nothing_after_it() -> None:
    region = Region()
    region.first.tick()
    assert region.air.said == []
    region.there = {ONE: 1}
    region.second.tick()
    region.there = {}
    region.second.tick()
    assert region.first.count(ONE) == 0
    region.second.tick()
    assert region.air.said == [f"b {ONE}=1".encode(), b"b"]


def test_the_numbers_of_a_process_that_is_silent_are_forgotten() -> None:
    region = Region()
    region.there = {ONE: 2}
    region.second.tick()
    region.now += 1.9
    assert region.first.count(ONE) == 2
    region.now += 0.2
    assert region.first.count(ONE) == 0
    region.first.tick()
    region.now -= 1.0
    assert region.first.count(ONE) == 0


def test_what_is_no_number_of_a_version_is_ignored() -> None:
    region = Region()
    for payload in (b"", b" ", b"c", b"c x=1", f"c {ONE}=-1 {ONE}={'9' * 400}".encode()):
        region.air.publish(b"nvcf.direct.eu", payload)
    region.air.publish(b"nvcf.direct.eu", f"c {ONE} {OTHER}=5 =".encode())
    assert (region.first.count(ONE), region.first.count(OTHER)) == (0, 5)


def test_a_process_that_has_stopped_listens_no_more() -> None:
    region = Region()
    region.first.close()
    region.there = {ONE: 2}
    region.second.tick()
    assert region.first.count(ONE) == 0
